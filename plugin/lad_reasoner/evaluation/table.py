"""Scores as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.table import Table

from lad_reasoner.evaluation.boxes import BOX_FIGURES, BoxScore
from lad_reasoner.evaluation.classes import ClassScore
from lad_reasoner.evaluation.compare import Comparison
from lad_reasoner.evaluation.mmad import ChoiceRun
from lad_reasoner.evaluation.paper import TABLE_1, PaperRow, pooled_matrix
from lad_reasoner.evaluation.rationales import FIGURES, RationaleScore
from lad_reasoner.evaluation.score import GroupScore, RunScore, Share
from lad_reasoner.evaluation.statistics import Estimate
from lad_reasoner.support.confusion import CONFUSION_METRICS
from lad_reasoner.support.percent import percent, points
from lad_reasoner.task.task import LOCO_CATEGORIES

if TYPE_CHECKING:
    from lad_reasoner.evaluation.judge import JudgeScore  # imports the client of servers

__all__ = [
    "LEGEND",
    "box_table",
    "choice_table",
    "class_tables",
    "compare_table",
    "judge_table",
    "overview_table",
    "rationale_comparison",
    "rationale_tables",
    "result_table",
    "run_table",
    "share_table",
    "with_interval",
]

#: What stands below `result_table`.
LEGEND: Final = (
    "Percent; [95% interval]; positive class: yes (anomalous). MCC: Matthews correlation, from -1 to 1; "
    "tokens: mean length of a reply; cut: cut off at the token limit."
)

#: Columns of a run's own table; the metrics with an interval are shown with it.
_COLUMNS: Final = {
    "accuracy": "accuracy",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "f1_max": "best F1",
    "calibration_error": "calibration error",
}


def result_table(runs: Sequence[RunScore], constants: Sequence[RunScore], *, paper: bool) -> Table:
    """Return the one table of `lad score`: a row per category of a single run, or per run of several.

    Args:
        runs: At least one, all of one protocol.
        constants: The scores of always answering yes and always answering no.
        paper: Whether to add the paper's rows: pooled, from its recovered matrices.
    """
    columns = ("pairs", "accuracy", "F1", "MCC", "yes", "tokens", "cut")
    table = _table("", [""], columns, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.columns[0].no_wrap = True
    if len(runs) == 1:
        for group in runs[0].categories.values():
            table.add_row(group.name, *_result_cells(group))
        table.add_row("all pairs (pooled)", *_result_cells(runs[0].pooled))
        macro = runs[0].macro
        table.add_row("mean of categories (macro)", "", *_three(macro), "", "", "")
    for run in runs if len(runs) > 1 else ():
        table.add_row(_run_name(run), *_result_cells(run.pooled))
    for run in [run.vote for run in runs if run.vote] + list(constants):
        table.add_row(run.name, *_result_cells(run.pooled))
    for row in TABLE_1 if paper else ():
        matrix = pooled_matrix(row.model)
        metrics = {
            name: Estimate(float(CONFUSION_METRICS[name](matrix.counts()))) for name in ("accuracy", "f1", "mcc")
        }
        yes = percent((matrix.tp + matrix.fp) / matrix.total)
        table.add_row(_paper_name(row), str(matrix.total), *_three(metrics), yes, "", "")
    return table


def _table(title: str, words: Iterable[str], numbers: Iterable[str], **options: Any) -> Table:
    """Return a table without rows: columns of words, then columns of numbers."""
    style: dict[str, Any] = {"box": box.SIMPLE, "title_justify": "left", "caption_justify": "left"} | options
    table = Table(title=title or None, **style)
    for name in words:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _run_name(run: RunScore) -> str:
    return run.name if run.votes == 1 else f"{run.name} (mean of {run.votes})"


def _paper_name(row: PaperRow) -> str:
    return f"{row.model.partition(' (')[0]} (paper)"


def _three(metrics: Mapping[str, Estimate]) -> tuple[str, str, str]:
    mcc = metrics["mcc"].value
    return with_interval(metrics["accuracy"]), percent(metrics["f1"].value), "n/a" if mcc is None else f"{mcc:.2f}"


def _result_cells(group: GroupScore) -> list[str]:
    tokens = "n/a" if group.tokens is None else f"{group.tokens:.0f}"
    return [str(group.pairs), *_three(group.metrics), percent(group.yes_share.value), tokens, percent(group.cut_share)]


def overview_table(runs: Sequence[RunScore], constants: Sequence[RunScore], *, paper: bool) -> Table:
    """Return the paper's Table 1 with our rows below: accuracy / F1 per category, pooled and macro.

    Args:
        runs: At least one, all of one protocol.
        constants: The scores of always answering yes and always answering no.
        paper: Whether to print the paper's rows, as printed there.
    """
    categories = list(dict.fromkeys(category for run in runs for category in run.categories))
    shown = (name.replace("_", " ") for name in categories)
    columns = ("pairs", "pooled", "macro", *shown, "unparsed", "template")
    table = _table(f"Accuracy / F1 in percent, protocol {runs[0].protocol!r}", ["model"], columns)
    if paper and set(categories) <= set(LOCO_CATEGORIES):
        for row in TABLE_1:
            table.add_row(*_paper_cells(row, categories))
        table.add_section()
        table.caption = "The paper prints one overall figure per row; its categories show which average it is."
    for score in (*(score for run in runs for score in (run, run.vote) if score), *constants):
        table.add_row(*_overview_cells(score, categories))
    return table


def _paper_cells(row: PaperRow, categories: Sequence[str]) -> list[str]:
    overall = f"{row.overall.accuracy} / {row.overall.f1}"
    pooled, macro = (overall, "-") if row.average == "pooled" else ("-", overall)
    cells = [f"{row.categories[name].accuracy} / {row.categories[name].f1}" for name in categories]
    return [_paper_name(row), "1136", pooled, macro, *cells, "-", "-"]


def _overview_cells(run: RunScore, categories: Sequence[str]) -> list[str]:
    groups = [run.pooled.metrics, run.macro]
    groups += [run.categories[name].metrics if name in run.categories else {} for name in categories]
    cells = [_unparsed(run.pooled), percent(run.pooled.template_rate)]
    return [_run_name(run), str(run.pooled.pairs), *map(_pair, groups), *cells]


def _pair(metrics: Mapping[str, Estimate]) -> str:
    return " / ".join(percent(metrics[name].value if name in metrics else None) for name in ("accuracy", "f1"))


def _unparsed(group: GroupScore) -> str:
    return f"{group.unparsed} ({percent(group.unparsed / group.replies)}%)"


def run_table(run: RunScore) -> Table:
    """Return every metric of one run with its interval: a row per metric, a column per category."""
    sources = ", ".join(f"{count} {source}" for source, count in sorted(run.score_sources.items())) or "none"
    groups = [*run.categories.values(), run.pooled]
    columns = (*(group.name.replace("_", " ") for group in groups), "macro")
    table = _table(f"{run.name}: percent [95% interval]; scores: {sources}", [""], columns)
    table.add_row("pairs", *(str(group.pairs) for group in groups), "")
    table.add_row("anomalous", *(str(group.anomalous) for group in groups), "", end_section=True)
    for name, heading in _COLUMNS.items():
        table.add_row(heading, *(with_interval(metrics[name]) for metrics in _metrics(groups, run)))
    table.add_row("Matthews correlation", *(_plain(metrics["mcc"]) for metrics in _metrics(groups, run)))
    table.add_section()
    for name, cells in (
        ("answered yes", [with_interval(group.yes_share) for group in groups]),
        ("unparsed", [_unparsed(group) for group in groups]),
        ("template kept", [percent(group.template_rate) for group in groups]),
        ("ties", [str(group.ties) for group in groups]),
    ):
        table.add_row(name, *cells, "")
    return table


def _metrics(groups: Sequence[GroupScore], run: RunScore) -> Iterator[Mapping[str, Estimate]]:
    yield from (group.metrics for group in groups)
    yield run.macro


def _plain(estimate: Estimate) -> str:
    return with_interval(estimate, lambda value: "n/a" if value is None else f"{value:.3f}")


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
    """Return the share of right answers per kind, or per category and defect, a column per run."""
    shares: list[dict[str, Share]] = [
        {share.name: share for share in (run.kinds if by == "kind" else run.defects)} for run in runs
    ]
    columns = ("pairs", *(run.name for run in runs))
    table = _table(f"Right answers by {by}: percent [95% interval]", [by], columns)
    for name in sorted({name for found in shares for name in found}):
        count = next(found[name].pairs for found in shares if name in found)
        cells = [with_interval(found[name].accuracy) if name in found else "n/a" for found in shares]
        table.add_row(name, str(count), *cells)
    return table


def choice_table(run: ChoiceRun) -> Table:
    """Return MMAD's table: a row per dataset, then their mean."""
    words = {
        "letter": "by a letter",
        "doubtful": "by the last of several letters (doubtful)",
        "likeness": "by likeness",
        "unread": "not at all",
    }
    how = ", ".join(f"{count} {words[name]}" for name, count in run.read.items() if count) or "none"
    columns = ("questions", *run.mean.types, "average", "overkill", "miss")
    table = _table(f"{run.name}: MMAD, percent [95% interval]; replies read: {how}", ["dataset"], columns)
    for row in (*run.datasets, run.mean):
        shares = [percent(accuracy.value) for accuracy in row.types.values()]
        rates = [percent(row.overkill.value), percent(row.miss.value)]
        last = row is run.datasets[-1]
        table.add_row(row.name, str(row.questions), *shares, with_interval(row.average), *rates, end_section=last)
    return table


def compare_table(comparisons: Sequence[Comparison], title: str) -> Table:
    """Return paired comparisons, one per row."""
    columns = ("pairs", "accuracy", "F1", "only A right", "only B right", "McNemar p", "Holm p")
    table = _table(title, ("A", "B"), columns)
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


def box_table(scores: Sequence[BoxScore]) -> Table:
    """Return the figures of the boxes, a row per run."""
    table = _table("Boxes: percent [95% interval]", [""], ("replies", *BOX_FIGURES.values()))
    for score in scores:
        table.add_row(score.name, str(score.replies), *(with_interval(score.figures[name]) for name in BOX_FIGURES))
    return table


def class_tables(scores: Sequence[ClassScore]) -> Iterator[Table]:
    """Yield the figures of the classes, a row per run, and a confusion table per run."""
    table = _table("Classes: percent [95% interval]", [""], ("replies", "accuracy", "macro F1", "credit"))
    for score in scores:
        figures = (score.accuracy, score.macro_f1, score.credit)
        table.add_row(score.name, str(score.replies), *map(with_interval, figures))
    yield table
    for score in scores:
        table = _table(f"{score.name}: truth by row, answer by column", [""], (*score.stated, "F1"))
        for name, row, f1 in zip(score.classes, score.confusion, score.f1, strict=True):
            table.add_row(name, *map(str, row), percent(f1))
        yield table


def rationale_tables(scores: Sequence[RationaleScore]) -> Iterator[Table]:
    """Yield the figures of the reasoning, a column per run, and the shares per defect."""
    runs = [score.name for score in scores]
    table = _table("Reasoning: percent [95% interval]", [""], runs)
    for name, heading in FIGURES.items():
        table.add_row(heading, *(with_interval(score.figures[name]) for score in scores))
    kappas = ("n/a" if score.kappa is None else f"{score.kappa:.2f}" for score in scores)
    table.add_row("kappa of reasoning and answer", *kappas, end_section=True)
    for place in range(2):
        rows = [score.baselines[place] for score in scores]
        table.add_row(f"{rows[0].name}: violation named", *(percent(row.recall) for row in rows))
        table.add_row(f"{rows[0].name}: named that are right", *(percent(row.precision) for row in rows))
    yield table
    table = _table("Violation named / named that are right, by defect, in percent", ["defect"], runs)
    found = [{defect.name: defect for defect in score.defects} for score in scores]
    for name in sorted({name for defects in found for name in defects}):
        own = [defects.get(name) for defects in found]
        table.add_row(
            name,
            *(f"{percent(item.recall.value)} / {percent(item.precision.value)}" if item else "n/a" for item in own),
        )
    yield table


def judge_table(scores: Sequence[JudgeScore]) -> Table:
    """Return what a judge model makes of the reasoning, a row per run and question."""
    columns = ("asked", "unread", "stable", "yes", "extractor's yes", "agreement", "kappa")
    table = _table("Judge, in percent: verdicts that are the same in both orders", ("run", "question"), columns)
    for score in scores:
        for question, item in (("something is wrong", score.asserts), ("the query's violation", score.names)):
            shares = (item.stable, item.yes, item.extractor_yes, item.agreement)
            kappa = "n/a" if item.kappa is None else f"{item.kappa:.2f}"
            table.add_row(score.name, question, str(item.asked), str(item.unread), *map(percent, shares), kappa)
    return table


def rationale_comparison(names: Sequence[tuple[str, str]], differences: Sequence[Mapping[str, Estimate]]) -> Table:
    """Return paired differences of the reasoning's figures, a column per comparison."""
    columns = (f"{first} - {second}" for first, second in names)
    table = _table("Reasoning: A minus B, percent points [95% interval]", [""], columns)
    for figure, heading in FIGURES.items():
        table.add_row(heading, *(with_interval(difference[figure], points) for difference in differences))
    return table
