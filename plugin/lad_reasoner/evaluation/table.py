"""Scores as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.table import Table
from rich.text import TextType

from lad_reasoner.evaluation.compare import Comparison
from lad_reasoner.evaluation.mmad import ChoiceRun
from lad_reasoner.evaluation.paper import TABLE_1, PaperRow
from lad_reasoner.evaluation.score import Estimate, GroupScore, RunScore, Share
from lad_reasoner.task.task import LOCO_CATEGORIES, abbreviate

__all__ = ["choice_table", "compare_table", "fit_table", "overview_table", "run_table", "share_table"]

_NOTHING: Final = "n/a"

#: Columns of a run's own table; the metrics with an interval are shown with it.
_COLUMNS: Final = {
    "accuracy": "accuracy",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "balanced_accuracy": "bal. acc.",
    "auroc": "AUROC",
    "average_precision": "AP",
    "f1_max": "F1-max",
    "calibration_error": "ECE",
}
_WITH_INTERVAL: Final = frozenset({"accuracy", "f1", "auroc"})


def percent(value: float | None) -> str:
    """Return a share as the paper prints it: percent, one decimal, halves up (its 56.3 is 56.25).

    Example:
        >>> percent(0.60387), percent(0.5625), percent(None)
        ('60.4', '56.3', 'n/a')
    """
    return _NOTHING if value is None else f"{math.floor(1000 * value + 0.5) / 10:.1f}"


def points(value: float | None) -> str:
    """Return a difference of two shares in percent points, with its sign.

    Example:
        >>> points(0.0213), points(-0.2327), points(0.0), points(None)
        ('+2.1', '-23.3', '0.0', 'n/a')
    """
    text = percent(value)
    return f"+{text}" if value is not None and not text.startswith("-") and text != "0.0" else text


def overview_table(runs: Sequence[RunScore], *, paper: bool) -> Table:
    """Return the paper's Table 1 with our rows below: accuracy / F1 of each category, pooled and macro.

    Args:
        runs: At least one, all of one protocol.
        paper: Whether to print the paper's rows above ours.
    """
    categories = list(dict.fromkeys(category for run in runs for category in run.categories))
    table = Table(title=f"Accuracy / F1 in percent, protocol {runs[0].protocol!r}; positive class: anomalous (yes)")
    table.add_column("model", no_wrap=True)
    for name in ("n", "pooled", "macro", *map(abbreviate, categories), "unparsed", "template"):
        table.add_column(name, justify="right", no_wrap=True)
    if paper and set(categories) <= set(LOCO_CATEGORIES):
        for row in TABLE_1:
            table.add_row(*_paper_cells(row, categories))
        table.add_section()
    for run in runs:
        table.add_row(*_overview_cells(run, categories))
        if run.vote is not None:
            table.add_row(*_overview_cells(run.vote, categories))
    return table


def _paper_cells(row: PaperRow, categories: Sequence[str]) -> list[str]:
    overall = f"{row.overall.accuracy} / {row.overall.f1}"
    pooled, macro = (overall, "-") if row.average == "pooled" else ("-", overall)
    cells = [f"{row.categories[name].accuracy} / {row.categories[name].f1}" for name in categories]
    return [f"{row.model} (paper)", "1136", pooled, macro, *cells, "-", "-"]


def _overview_cells(run: RunScore, categories: Sequence[str]) -> list[str]:
    groups = [run.pooled.metrics, run.macro]
    groups += [run.categories[name].metrics if name in run.categories else {} for name in categories]
    name = run.name if run.votes == 1 else f"{run.name} (mean of {run.votes})"
    return [name, str(run.pooled.pairs), *map(_pair, groups), _unparsed(run.pooled), percent(run.pooled.template_rate)]


def _pair(metrics: Mapping[str, Estimate]) -> str:
    return " / ".join(percent(metrics[name].value) if name in metrics else _NOTHING for name in ("accuracy", "f1"))


def _unparsed(group: GroupScore) -> str:
    return f"{group.unparsed} ({percent(group.unparsed / group.replies)}%)"


def run_table(run: RunScore) -> Table:
    """Return everything about one run: a row a category, then pooled and macro, with 95% intervals."""
    sources = ", ".join(f"{count} {source}" for source, count in sorted(run.score_sources.items())) or "none"
    table = Table(title=f"{run.name}: percent [95% interval]; scores: {sources}")
    table.add_column("category", no_wrap=True)
    for name in ("n", "anomalous", *_COLUMNS.values(), "unparsed", "template"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in (*run.categories.values(), run.pooled):
        table.add_row(
            group.name,
            str(group.pairs),
            str(group.anomalous),
            *_metric_cells(group.metrics),
            _unparsed(group),
            percent(group.template_rate),
            end_section=group.name == list(run.categories)[-1],
        )
    table.add_row("macro", "", "", *_metric_cells(run.macro), "", "")
    return table


def _metric_cells(metrics: Mapping[str, Estimate]) -> list[str]:
    return [
        with_interval(metrics[name]) if name in _WITH_INTERVAL else percent(metrics[name].value) for name in _COLUMNS
    ]


def with_interval(estimate: Estimate, show: Callable[[float | None], str] = percent) -> str:
    """Return an estimate with its interval, if it has one.

    Example:
        >>> with_interval(Estimate(0.604, 0.576, 0.632)), with_interval(Estimate(0.5)), with_interval(Estimate(None))
        ('60.4 [57.6, 63.2]', '50.0', 'n/a')
    """
    if estimate.low is None or estimate.high is None:
        return show(estimate.value)
    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def share_table(runs: Sequence[RunScore], by: str) -> Table:
    """Return the share of right answers of each kind, or each category's defects, a column a run."""
    shares: list[dict[str, Share]] = [
        {share.name: share for share in (run.kinds if by == "kind" else run.defects)} for run in runs
    ]
    table = Table(title=f"Right answers by {by}: percent [95% interval]")
    table.add_column(by, no_wrap=True)
    table.add_column("n", justify="right")
    for run in runs:
        table.add_column(run.name, justify="right", no_wrap=True)
    for name in sorted({name for found in shares for name in found}):
        count = next(found[name].pairs for found in shares if name in found)
        cells = [with_interval(found[name].accuracy) if name in found else _NOTHING for found in shares]
        table.add_row(name, str(count), *cells)
    return table


def choice_table(run: ChoiceRun) -> Table:
    """Return MMAD's table: a row a dataset, then their mean."""
    how = ", ".join(f"{count} by {name}" for name, count in run.read.items() if count and name != "unread")
    unread = f", {run.read['unread']} not at all" if run.read["unread"] else ""
    table = Table(title=f"{run.name}: MMAD, percent [95% interval]; replies read: {how or 'none'}{unread}")
    table.add_column("dataset", no_wrap=True)
    for name in ("n", *run.mean.types, "average", "overkill", "miss"):
        table.add_column(name, justify="right")
    for row in (*run.datasets, run.mean):
        shares = [percent(accuracy.value) for accuracy in row.types.values()]
        rates = [percent(row.overkill.value), percent(row.miss.value)]
        last = row is run.datasets[-1]
        table.add_row(row.name, str(row.questions), *shares, with_interval(row.average), *rates, end_section=last)
    return table


def compare_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the paired comparisons, one a row."""
    table = Table(title="Paired comparison: A minus B, percent points [95% interval]")
    for name in ("A", "B"):
        table.add_column(name, no_wrap=True)
    for name in ("n", "accuracy", "F1", "only A right", "only B right", "McNemar p", "Holm p"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in comparisons:
        table.add_row(
            item.first,
            item.second,
            str(item.pairs),
            with_interval(item.accuracy, points),
            with_interval(item.f1, points),
            str(item.only_first),
            str(item.only_second),
            f"{item.p_value:.4g}",
            f"{item.p_holm:.4g}",
        )
    return table


def fit_table(table: Table, width: int) -> list[Table]:
    """Return a table as one or several below each other that fit a width, so that no figure is cut off.

    The left-aligned columns say what a row is about; they open every part. The first part has the title. A column that
    does not fit beside them is left to the terminal.

    Args:
        table: With columns of plain text.
        width: In characters.
    """
    texts = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    widths = [max(map(cell_len, column)) + 3 for column in texts]  # a border and a space on either side
    keys = [place for place, column in enumerate(table.columns) if column.justify == "left"]
    parts: list[list[int]] = [[]]
    room = width - 1 - sum(widths[place] for place in keys)
    left = room
    for place in (place for place in range(len(texts)) if place not in keys):
        if parts[-1] and widths[place] > left:
            parts.append([])
            left = room
        parts[-1].append(place)
        left -= widths[place]
    return (
        [table]
        if len(parts) == 1
        else [
            _part(table, [*keys, *part], texts, title=None if number else table.title)
            for number, part in enumerate(parts)
        ]
    )


def _part(table: Table, places: Sequence[int], texts: Sequence[Sequence[str]], *, title: TextType | None) -> Table:
    part = Table(title=title)
    for place in places:
        part.add_column(texts[place][0], justify=table.columns[place].justify, no_wrap=True)
    for row, options in enumerate(table.rows, start=1):
        part.add_row(*(texts[place][row] for place in places), end_section=options.end_section)
    return part
