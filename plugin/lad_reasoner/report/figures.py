"""The paper's figures 2 to 7, plotted from your own runs as SVG and PNG."""

from __future__ import annotations

import logging
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure

from lad_reasoner.evaluation.paper import TABLE_1
from lad_reasoner.models.weights import parameter_count
from lad_reasoner.pairs.images import decode, read_image_bytes
from lad_reasoner.pairs.reader import Truth
from lad_reasoner.report.content import Content, RunContent
from lad_reasoner.report.page import PlottedFigure, ReportPictures
from lad_reasoner.report.plotting import ACCENT, DOUBT, GREY, WRONG, finish_axes, mark_cut, save_figure
from lad_reasoner.report.sft_samples import read_sft_samples
from lad_reasoner.report.training_curves import Run
from lad_reasoner.report.training_curves import draw_lengths as plot_lengths
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import ANOMALOUS
from lad_reasoner.training.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["count_model_parameters", "find_disputed", "write_figures"]

logger = logging.getLogger(__name__)

_PANELS: Final = 4
_SHORTENED: Final = 420
_LINE_POINTS: Final = 14
_NAME_POINTS: Final = 11

#: A bubble: the model's name, parameters, metrics as shares, and colour.
_Point = tuple[str, int, Mapping[str, float | None], str]

_CAPTIONS: Final = {
    2: "samples of the SFT data",
    3: "the same query before and after SFT",
    4: "anomalies found by the last model, with its reasoning",
    5: "response length over GRPO steps",
    6: "accuracy and F1 by model size",
    7: "all models on one pair",
}


def write_figures(
    content: Content,
    pictures: ReportPictures,
    folder: Path,
    *,
    training: Sequence[tuple[str, Path]] = (),
    pair_id: str | None = None,
    sft: Path | None = None,
    before_after: tuple[str, str] | None = None,
) -> tuple[list[PlottedFigure], list[str]]:
    """Write every figure that the runs allow.

    Figure 2 shows the data in ``sft``, a folder of `lad build sft`; figure 3 the runs ``before_after`` SFT; figure 5
    ``training``, the label and checkpoint folder of each GRPO run. Figures 3 and 7 show the pair ``pair_id``, by
    default one on which their models differ.

    Returns:
        The figures, and a line for each that was not plotted, with the reason.

    Raises:
        UsageError: ``pair_id`` is not among the pairs shown, or ``before_after`` names no run.
        DataError: ``sft`` has no SFT data, or an image of it cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[int, Callable[[], Figure | str]] = {
        2: lambda: draw_sft_samples(sft),
        3: lambda: draw_before_after(content, pictures, before_after, pair_id),
        4: lambda: draw_examples(content, pictures),
        5: lambda: draw_lengths(training),
        6: lambda: draw_sizes(content),
        7: lambda: draw_variants(content, pictures, find_disputed(content, pair_id)),
    }
    notes, plotted = [], []
    for number, draw in figures.items():
        drawn = draw()
        if isinstance(drawn, str):
            notes.append(f"figure {number} is left out: {drawn}")
            for suffix in ("svg", "png"):  # an earlier report's would be taken for this one's
                (folder / f"figure-{number}.{suffix}").unlink(missing_ok=True)
            continue
        save_figure(drawn, folder, f"figure-{number}")
        plotted.append(PlottedFigure(f"figure-{number}", f"Figure {number}: {_CAPTIONS[number]}", folder))
    return plotted, notes


def draw_sft_samples(sft: Path | None) -> Figure | str:
    """Plot figure 2: questions and answers of the SFT data, of different categories where there are."""
    if sft is None:
        return "no SFT data was named; give --sft FOLDER"
    chosen = read_sft_samples(sft, _PANELS)
    columns = min(2, max(1, *(len(sample.images) for sample in chosen)))
    figure = Figure(figsize=(11, 2.5 * len(chosen)), layout="constrained")
    rows = figure.subplots(len(chosen), columns + 1, squeeze=False, width_ratios=(*(1,) * columns, 3.9 - columns))
    for (*pictures, said), sample in zip(rows, chosen, strict=True):
        for shown in pictures:
            shown.set_anchor("NW")
            shown.set_axis_off()
        for shown, image in zip(pictures, sample.images[-columns:], strict=False):
            shown.imshow(decode(read_image_bytes(image), image))
        width = 88 if columns == 1 else 60
        question, answer = _fill(f"Q: {sample.question}", width), _fill(f"A: {sample.answer}", width)
        _write(said, question, line=0, weight="bold", color=ACCENT)
        _write(said, answer, line=question.count("\n") + 2)
    return figure


def draw_before_after(
    content: Content, pictures: ReportPictures, names: tuple[str, str] | None, pair_id: str | None
) -> Figure | str:
    """Plot figure 3: what a model says about the same query before and after SFT."""
    if names is None:
        return "no runs before and after SFT were named; give --before-after BEFORE=AFTER"
    known = {run.name: run for run in content.runs}
    if missing := [name for name in names if name not in known]:
        raise UsageError(f"there is no run {missing[0]!r}", where="--before-after", remedy=f"Use {', '.join(known)}")
    if names[0] == names[1]:
        raise UsageError(f"both runs are {names[0]!r}", where="--before-after", remedy="Name two runs")
    two = replace(content, runs=tuple(known[name] for name in names))
    return draw_variants(two, pictures, find_disputed(two, pair_id))


def _write(axes: Axes, text: str, *, line: int, **style: Any) -> None:
    """Write a text, and nothing else, into axes from a line on."""
    axes.set_axis_off()
    style |= {"fontsize": 9, "linespacing": 1.25, "parse_math": False}
    axes.annotate(text, (0, 1), (0, -line * _LINE_POINTS), "axes fraction", "offset points", va="top", **style)


def draw_examples(content: Content, pictures: ReportPictures) -> Figure | str:
    """Draw figure 4: anomalies that the last run finds, one per category, with its reasoning."""
    run = content.runs[-1]
    found: dict[str, Truth] = {}
    for truth in sorted(content.truths, key=lambda truth: (run.wrong_reason(truth), run.error(truth))):
        if truth.label == ANOMALOUS and run.error(truth) < 1 and _reasoning(run, truth):
            found.setdefault(truth.category, truth)
    if not found:
        return f"{run.name} finds no anomaly with reasoning"
    chosen = list(found.values())[:_PANELS]
    figure = Figure(figsize=(11, 2.5 * len(chosen)), layout="constrained")
    rows = figure.subplots(len(chosen), 3, squeeze=False, width_ratios=(1, 1, 1.9))
    for axes, truth in zip(rows, chosen, strict=True):
        _draw_pair(axes[:2], truth, pictures)
        _write_response(axes[2], run, truth, _response_text(run, truth))
    return figure


def draw_lengths(training: Sequence[tuple[str, Path]]) -> Figure | str:
    """Draw figure 5: the length of responses over GRPO steps, a line per run."""
    if not training:
        return "no GRPO run was named; give --training LABEL=FOLDER"
    runs = [Run(label, folder, read_metrics(folder)) for label, folder in training]
    for run in runs:
        if not run.series("response_length")[0]:
            return f"{run.folder} logs no response length"
    return plot_lengths(runs) or "no run logs a response length"


def draw_sizes(content: Content) -> Figure | str:
    """Draw figure 6: pooled accuracy and F1 against the number of parameters; the area of a bubble is the number."""
    ours = [(run.name, count_model_parameters(str(run.card["model"])), run) for run in content.runs]
    points: list[_Point] = [
        (name, count, {metric: run.shown.pooled.metrics[metric].value for metric in ("accuracy", "f1")}, ACCENT)
        for name, count, run in ours
        if count
    ]
    if not points:
        return "the size of no model is known (no local weights, and no size such as 3B in a name)"
    points += _paper_points(content)
    largest = max(count for _, count, _, _ in points)
    if len({count for _, count, _, _ in points}) == 1:
        return _draw_one_size(points)
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    for axes, metric, label in zip(figure.subplots(1, 2), ("accuracy", "f1"), ("accuracy (%)", "F1 (%)"), strict=True):
        for _, count, metrics, colour in points:
            if (value := metrics[metric]) is not None:
                area = 40 + 700 * count / largest
                axes.scatter([count], [100 * value], s=area, color=colour, alpha=0.55, edgecolors=colour)
        _leave_room([count for _, count, _, _ in points], axes)
        finish_axes(axes, x="parameters", y=label)
        mark_cut(axes)
    figure.draw_without_rendering()  # from here on the axes keep their place
    for axes, metric in zip(figure.axes, ("accuracy", "f1"), strict=True):
        known = [(name, count, value) for name, count, metrics, _ in points if (value := metrics[metric]) is not None]
        _name_bubbles(axes, known)
    return figure


def _draw_one_size(points: Sequence[_Point]) -> Figure:
    """Plot models of one size as a row each: against parameters, all would stand above each other."""
    figure = Figure(figsize=(9.5, 1.2 + 0.3 * len(points)), layout="constrained")
    rows = figure.subplots(1, 2, sharey=True)
    for axes, metric, label in zip(rows, ("accuracy", "f1"), ("accuracy (%)", "F1 (%)"), strict=True):
        for place, (_, _, metrics, colour) in enumerate(points):
            if (value := metrics[metric]) is not None:
                axes.barh(place, 100 * value, height=0.6, color=colour)
                spot = (100 * value, place)
                axes.annotate(f"{spot[0]:.1f}", spot, (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_xlim(0, 108)
        finish_axes(axes, x=label)
    rows[0].set_yticks(range(len(points)), [name for name, _, _, _ in points], parse_math=False)
    rows[0].invert_yaxis()
    return figure


def _leave_room(counts: Sequence[int], axes: Axes) -> None:
    """Set limits that leave room for names to the right of the largest model."""
    low, high = math.log10(min(counts)), math.log10(max(counts))
    axes.set_xscale("log")
    axes.set_xlim(10 ** (low - 0.3), 10 ** (high + max(0.9 * (high - low), 0.5)))
    axes.margins(y=0.2)


def _name_bubbles(axes: Axes, known: Sequence[tuple[str, int, float]]) -> None:
    """Write each model's name next to its bubble; overlapping names are moved apart, with a line to their bubble."""
    if not known:
        return
    points_per_pixel = 72 / axes.figure.dpi
    heights = [axes.transData.transform((count, 100 * value))[1] * points_per_pixel for _, count, value in known]
    for (name, count, value), height, moved in zip(known, heights, spread(heights, gap=_NAME_POINTS), strict=True):
        label = axes.annotate(
            name,
            (count, 100 * value),
            (22, moved - height),
            textcoords="offset points",
            fontsize=7.5,
            va="center",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0},
        )
        label.set_in_layout(False)


def spread(places: Sequence[float], *, gap: float) -> list[float]:
    """Return places moved apart to at least a gap, in their order, as little as possible (least squares).

    Example:
        >>> spread([5.0, 5.0, 40.0], gap=10)
        [0.0, 10.0, 40.0]
    """
    import numpy as np
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    moved = np.empty(len(places))
    moved[order] = isotonic_regression(np.asarray(places, dtype=np.float64)[order] - steps) + steps
    return [float(place) for place in moved]


def _paper_points(content: Content) -> Iterator[_Point]:
    """Yield the paper's rows whose name holds their size, if they were measured on the same pairs."""
    if content.protocol != "paper" or {truth.dataset for truth in content.truths} != {"mvtec_loco"}:
        return
    for row in TABLE_1:
        name = "Qwen2.5-VL-3B" if row.model == "LAD-Reasoner" else row.model  # trained from that model
        if count := parameter_count(name):
            values = {"accuracy": float(row.overall.accuracy) / 100, "f1": float(row.overall.f1) / 100}
            yield f"{row.model} (paper)", count, values, GREY


def draw_variants(content: Content, pictures: ReportPictures, truth: Truth | None) -> Figure | str:
    """Draw figure 7: what every run answers about one pair."""
    if truth is None:
        return "there is no pair to show"
    texts = [_response_text(run, truth) for run in content.runs]
    lines = sum(text.count("\n") + 3 for text in texts)
    figure = Figure(figsize=(11, max(2.8, (lines + 1) * _LINE_POINTS / 72)), layout="constrained")
    *pair, said = figure.subplots(1, 3, width_ratios=(1, 1, 1.9))
    _draw_pair(pair, truth, pictures)
    line = 0
    for run, text in zip(content.runs, texts, strict=True):
        _write_response(said, run, truth, text, line=line)
        line += text.count("\n") + 3
    return figure


def find_disputed(content: Content, pair_id: str | None) -> Truth | None:
    """Return the named pair, or one that the last run gets right and most others get wrong; preferably an anomaly."""
    if pair_id is not None:
        if found := next((truth for truth in content.truths if truth.pair_id == pair_id), None):
            return found
        raise UsageError(f"the report shows no pair {pair_id!r}", where="--pair")
    last, others = content.runs[-1], content.runs[:-1]

    def telling(truth: Truth) -> tuple[bool, bool, int, float]:
        right = last.error(truth) < 1
        missed = sum(run.error(truth) >= 1 for run in others)
        # An anomaly that everyone finds is less telling than a normal pair over which they differ.
        margin = sum(run.error(truth) for run in others) - last.error(truth)
        return right and (missed > 0 or not others), truth.label == ANOMALOUS, missed, margin

    return max(content.truths, key=telling, default=None)


def count_model_parameters(model: str) -> int | None:
    """Return a model's number of parameters; None, with a warning, where its weights cannot be read."""
    try:
        return parameter_count(model)
    except (DataError, OSError) as error:
        logger.warning("figure 6 leaves out a model: %s", error)
        return None


def _draw_pair(axes: Sequence[Axes], truth: Truth, pictures: ReportPictures) -> None:
    """Draw the first reference and the query."""
    from PIL import Image

    shown = pictures.by_pair[truth.pair_id]
    query = f"query: {truth.category}, {truth.defect}".replace("_", " ")
    for axis, name, title in zip(axes, (shown.references[0], shown.query), ("reference", query), strict=True):
        axis.imshow(Image.open(BytesIO(pictures.read(name))))
        axis.set_title(title, fontsize=9, loc="left", parse_math=False)
        axis.set_anchor("NW")
        axis.set_axis_off()


def _write_response(axes: Axes, run: RunContent, truth: Truth, text: str, *, line: int = 0) -> None:
    """Write the run's name and verdict, and its reasoning below, from a line of the axes on."""
    row = run.judged.get(truth.pair_id)
    answer = row.replies[0].answer if row else None
    score = "" if row is None or row.replies[0].score is None else f", P(yes) {row.replies[0].score:.2f}"
    if answer != truth.label:
        judgement, colour = "wrong", WRONG
    elif run.wrong_reason(truth):
        judgement, colour = "verdict right, reason wrong", DOUBT
    else:
        judgement, colour = "right", ACCENT
    verdict = f"{run.name}: {answer or 'no readable answer'} ({judgement}{score})"
    _write(axes, verdict, line=line, weight="bold", color=colour)
    _write(axes, text, line=line + 1, color="black")


def _response_text(run: RunContent, truth: Truth) -> str:
    return _fill(_reasoning(run, truth) or "no reasoning in the template", 62)


def _reasoning(run: RunContent, truth: Truth) -> str:
    predictions = run.predictions.get(truth.pair_id, ())
    return parse(predictions[0].response).reasoning if predictions else ""


def _fill(text: str, width: int) -> str:
    """Return a text shortened and wrapped, without what an SVG file cannot hold."""
    printable = "".join(character for character in text if character.isprintable() or character.isspace())
    return textwrap.fill(textwrap.shorten(printable, _SHORTENED, placeholder=" ..."), width)
