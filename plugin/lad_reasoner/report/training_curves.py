"""What GRPO runs measured, as pictures: several runs in one, from EasyR1's and verl's logs alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

from lad_reasoner.report.plotting import LINE_COLOURS, finish_axes, mark_cut, save_figure
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.task import LOCO_CATEGORIES, abbreviate
from lad_reasoner.training.metrics import DIAGNOSTICS, LOGS, Row, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Run",
    "draw_categories",
    "draw_diagnostics",
    "draw_lengths",
    "draw_overview",
    "draw_panels",
    "last_values",
    "read_runs",
    "write_plots",
]

#: Our name of a metric, and what the panel is called.
OVERVIEW: Final = {
    "reward": "mean reward",
    "structure": "structure reward",
    "accuracy": "accuracy reward",
    "f1": "F1",
    "response_length": "response length (tokens)",
    "kl": "KL to the reference (nats a token)",
}
#: Metrics that are shares: their axis is the same in every picture.
_SHARES: Final = ("structure", "accuracy", "f1", "unanimous", "unanimous_right", "unanimous_wrong")
_COLUMNS: Final = 4

#: Tokens that an axis of response lengths spans at least, so that noise does not look like a trend. Our choice.
LENGTH_SPAN: Final = 10

#: Steps over which training by category is averaged: a step has few rows of a category, if any. Our choice.
WINDOW: Final = 10


@dataclass(frozen=True, slots=True)
class Run:
    """A run to draw: its name in the legend, its checkpoint folder, and a row for each step that it measured."""

    label: str
    folder: Path
    rows: Sequence[Row]

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Return the steps that have a finite value of a metric, and the values."""
        pairs = [(row["step"], row[name]) for row in self.rows if math.isfinite(row.get(name, math.nan))]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def averaged(self, name: str) -> tuple[list[float], list[float]]:
        """Return a series of which each value is the mean over the last `WINDOW` steps that have it.

        F1 is taken from the averaged confusion shares: it is no mean.
        """
        metric, _, category = name.partition("_")
        if metric != "f1":
            steps, values = self.series(name)
            return steps, _running(values)
        steps, _ = self.series(f"tp_{category}")
        tp, fp, fn = (_running(self.series(f"{part}_{category}")[1]) for part in ("tp", "fp", "fn"))
        if not len(tp) == len(fp) == len(fn):
            return self.series(name)
        shares = [(step, *cells) for step, *cells in zip(steps, tp, fp, fn, strict=True) if sum(cells) > 0]
        return [step for step, *_ in shares], [2 * hit / (2 * hit + wrong + miss) for _, hit, wrong, miss in shares]


def _running(values: Sequence[float]) -> list[float]:
    return [fmean(values[max(0, end - WINDOW) : end]) for end in range(1, len(values) + 1)]


def read_runs(named: Sequence[str]) -> list[Run]:
    """Read runs, each named by its checkpoint folder or as ``LABEL=FOLDER``.

    A log file of the folder will do too. Without a label a run is called as its folder is, or as it was named where
    two folders have one name.

    Raises:
        UsageError: There is no such folder, or two runs have one label.
        DataError: A folder has no log of either trainer, or its logs have no step.
    """
    parsed = [_parse(text) for text in named]
    bare = [folder.name for label, folder in parsed if not label]
    runs: list[Run] = []
    for label, folder in parsed:
        name = label or (folder.name if bare.count(folder.name) == 1 else str(folder))
        if name in {run.label for run in runs}:
            raise UsageError(f"two runs are named {name}", remedy="Name them: LABEL=FOLDER")
        runs.append(Run(name, folder, _read(folder)))
    return runs


def _parse(text: str) -> tuple[str, Path]:
    label, separator, path = text.partition("=")
    if not separator or Path(text).exists():
        label, path = "", text
    try:
        place = Path(path).resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise UsageError("the link leads nowhere", where=text, remedy="Name the checkpoint folder of a run") from error
    if place.is_file() and place.name in LOGS:
        place = place.parent
    if not path or not place.is_dir():
        remedy = "Name the checkpoint folder of a GRPO run, or LABEL=FOLDER"
        raise UsageError("no such folder", where=text, remedy=remedy)
    return label, place


def _read(folder: Path) -> list[Row]:
    rows = read_metrics(folder)
    if not rows:
        problem = f"no step was measured: there is no {' or '.join(LOGS)} here or in attempts/*/"
        remedy = "Name trainer.save_checkpoint_path; EasyR1 writes a log if trainer.logger has file"
        raise DataError(problem, where=folder, remedy=remedy)
    return rows


def last_values(run: Run) -> dict[str, float | None]:
    """Return the last value of each metric of the overview, training and validation; None where there is none."""
    values: dict[str, float | None] = {"steps": max(row["step"] for row in run.rows)}
    for name in (*OVERVIEW, *(f"val/{name}" for name in ("reward", "accuracy", "f1")), *DIAGNOSTICS):
        values[name] = next(reversed(run.series(name)[1]), None)
    return values


def write_plots(runs: Sequence[Run], out: Path) -> list[Path]:
    """Draw every picture that the runs allow into a folder, as SVG and PNG.

    Returns:
        The files: ``training`` (an overview), ``diagnostics``, ``response-length`` (the paper's figure 5),
        ``f1-by-category`` and ``accuracy-by-category``; those without any measurement are left out.
    """
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "training": draw_overview(runs),
        "diagnostics": draw_diagnostics(runs),
        "response-length": draw_lengths(runs),
        "f1-by-category": draw_categories(runs, "f1"),
        "accuracy-by-category": draw_categories(runs, "accuracy"),
    }
    return [path for name, figure in figures.items() if figure for path in save_figure(figure, out, name)]


def draw_overview(runs: Sequence[Run]) -> Figure:
    """Draw reward, its parts, F1, response length and KL over the steps; values that were not logged are n/a."""
    return draw_panels(runs, OVERVIEW)


def draw_diagnostics(runs: Sequence[Run]) -> Figure | None:
    """Draw unanimous groups, reward spread, entropy, clip share and gradient norm; None if no run logged any."""
    logged = any(run.series(name)[0] for run in runs for name in DIAGNOSTICS)
    return draw_panels(runs, DIAGNOSTICS) if logged else None


def draw_panels(runs: Sequence[Run], panels: Mapping[str, str], *, columns: int = 3) -> Figure:
    """Draw one panel per metric over the steps, in rows of ``columns``; a metric that no run logged is marked n/a.

    ``panels`` are titles by metric.
    """
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.67 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axis, (name, title) in zip(axes.flat, panels.items(), strict=True):
        _draw_panel(axis, runs, name, title)
    for axis in axes[-1]:
        axis.set_xlabel("GRPO step")
    _add_legend(figure, runs, columns=columns)
    return figure


def draw_lengths(runs: Sequence[Run]) -> Figure | None:
    """Draw the paper's figure 5: the length of responses over the steps; None if no run logged it."""
    from matplotlib.figure import Figure

    if not any(run.series("response_length")[0] for run in runs):
        return None
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for place, run in enumerate(runs):
        _draw_line(axes, run.series("response_length"), place, label=run.label)
    finish_axes(axes, x="GRPO step", y="response length (tokens)")
    _whole_steps(axes)
    _widen(axes)
    mark_cut(axes)
    axes.legend(frameon=False)
    return figure


def draw_categories(runs: Sequence[Run], metric: str) -> Figure | None:
    """Draw a metric by category, a panel each, those of MVTec LOCO AD first; None if no run logged it by category.

    Training is averaged over `WINDOW` steps, and of a lone run also shown faint as it is; validation as it is.
    """
    from matplotlib.figure import Figure

    categories = _categories(runs, metric)
    if not categories:
        return None
    columns = min(_COLUMNS, len(categories))
    rows = -(-len(categories) // columns)
    figure = Figure(figsize=(max(6.0, 2.8 * columns), 1.2 + 2.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axis, category in zip(axes.flat, categories, strict=False):
        short = abbreviate(category)
        title = category.replace("_", " ") + (f" ({short})" if short != category else "")
        _draw_panel(axis, runs, f"{metric}_{category}", title, by_category=True)
    for axis in axes.flat[len(categories) :]:
        axis.set_visible(False)
    for axis in axes.flat[len(categories) - columns : len(categories)]:
        axis.tick_params(labelbottom=True)  # the lowest that is shown of each column
    faint = "; faint: each step" if len(runs) == 1 else ""
    figure.supxlabel(f"GRPO step (training: mean of {WINDOW} steps{faint})", fontsize=9)
    figure.supylabel({"f1": "F1"}.get(metric, metric), fontsize=10)
    _add_legend(figure, runs)
    return figure


def _categories(runs: Sequence[Run], metric: str) -> list[str]:
    names = {name.removeprefix("val/") for run in runs for row in run.rows for name in row}
    found = {name.removeprefix(f"{metric}_") for name in names if name.startswith(f"{metric}_")}
    order = {category: place for place, category in enumerate(LOCO_CATEGORIES)}
    return sorted(found, key=lambda category: (order.get(category, len(order)), category))


def _draw_panel(axes: Axes, runs: Sequence[Run], name: str, title: str, *, by_category: bool = False) -> None:
    drawn = False
    for place, run in enumerate(runs):
        training, validation = run.series(name), run.series(f"val/{name}")
        if by_category and training[0]:
            if len(runs) == 1:
                _draw_line(axes, training, place, alpha=0.25)
            training = run.averaged(name)
        _draw_line(axes, training, place)
        _draw_line(axes, validation, place, validation=True)
        drawn |= bool(training[0] or validation[0])
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    finish_axes(axes)
    _whole_steps(axes)
    if by_category or name in _SHARES:
        axes.set_ylim(-0.02, 1.02)
    elif name == "response_length":
        _widen(axes)
    else:
        _start_at_zero(axes)
    mark_cut(axes)
    if not drawn:
        axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center", va="center", color="grey")


def _draw_line(
    axes: Axes,
    series: tuple[list[float], list[float]],
    place: int,
    *,
    validation: bool = False,
    alpha: float = 1.0,
    label: str | None = None,
) -> None:
    """Draw a series, if it has a value or a label; a lone point gets a mark, as validation always does."""
    if not series[0] and label is None:
        return
    axes.plot(
        *series,
        color=_colour(place),
        ls="--" if validation else "-",
        lw=1.1 if validation or alpha < 1 else 1.7,
        marker="o" if validation or len(series[0]) == 1 else None,
        ms=3.5,
        alpha=alpha,
        label=label,
    )


def _colour(place: int) -> str:
    return LINE_COLOURS[place % len(LINE_COLOURS)]


def _whole_steps(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _widen(axes: Axes) -> None:
    """Let an axis of lengths span no less than `LENGTH_SPAN`, and nothing below zero."""
    low, high = axes.get_ylim()
    if high - low < LENGTH_SPAN:
        middle = max((low + high) / 2, LENGTH_SPAN / 2)
        axes.set_ylim(middle - LENGTH_SPAN / 2, middle + LENGTH_SPAN / 2)


def _start_at_zero(axes: Axes) -> None:
    """Let an axis of values of zero or more start at zero, if that hides little of how they change."""
    lowest = axes.dataLim.ymin
    low, high = axes.get_ylim()
    if lowest >= 0 and (low < 0 or lowest < high / 2):
        axes.set_ylim(-0.02 * high, high)


def _add_legend(figure: Figure, runs: Sequence[Run], *, columns: int = 3) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=_colour(place), label=run.label) for place, run in enumerate(runs)]
    if any(name.startswith("val/") for run in runs for row in run.rows for name in row):
        lines.append(Line2D([], [], color="black", ls="--", marker="o", ms=3.5, lw=1.1, label="validation"))
    figure.legend(handles=lines, loc="outside upper right", ncols=min(len(lines), columns), frameon=False)
