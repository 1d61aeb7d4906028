"""A run's score distribution, ROC curve and reliability as charts: plain geometry that the page draws as inline SVG.

Inline, so that charts follow the page's colours in light, dark and print.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lad_reasoner.report.content import RunContent
from lad_reasoner.support.confusion import Floats
from lad_reasoner.task.task import ANOMALOUS

__all__ = ["Chart", "draw_charts"]

#: The viewBox, and the plotting area within it.
WIDTH: Final = 260
HEIGHT: Final = 200
LEFT, RIGHT, TOP, BOTTOM = 38, 252, 10, 162

_BINS: Final = 20
_RELIABILITY_BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart; positions are in the viewBox.

    Attributes:
        summary: What it shows in words, for screen readers.
        x_ticks: Position and text.
        y_ticks: Position and text.
        bars: (class, x, y, width, height).
        lines: (class, SVG points).
        dots: (class, x, y, radius).
    """

    title: str
    summary: str
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    bars: tuple[tuple[str, float, float, float, float], ...] = ()
    lines: tuple[tuple[str, str], ...] = ()
    dots: tuple[tuple[str, float, float, float], ...] = ()


def _x(value: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * value, 2)


def _y(value: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * value, 2)


_UNIT_X: Final = tuple((_x(value), f"{value:g}") for value in (0.0, 0.25, 0.5, 0.75, 1.0))
_UNIT_Y: Final = tuple((_y(value), f"{value:g}") for value in (0.0, 0.5, 1.0))


def draw_charts(runs: Sequence[RunContent]) -> list[tuple[Chart, ...]]:
    """Return the charts of every run; none for a run in which a pair has no score."""
    scored = [_scores(run) for run in runs]
    curves = ["" if item is None else _roc_points(*item) for item in scored]
    charts: list[tuple[Chart, ...]] = []
    for place, (run, item) in enumerate(zip(runs, scored, strict=True)):
        others = [curve for other, curve in enumerate(curves) if other != place and curve]
        drawn = [] if item is None else [_histogram(*item), _roc(run, curves[place], others), _reliability(run, *item)]
        charts.append(tuple(chart for chart in drawn if chart is not None))
    return charts


def _scores(run: RunContent) -> tuple[Floats, Floats] | None:
    rows = list(run.judged.values())
    scores = np.array([row.replies[0].score for row in rows], dtype=np.float64)  # None becomes NaN
    if np.isnan(scores).any() or scores.min() < 0 or scores.max() > 1:
        return None
    return np.array([row.truth.label == ANOMALOUS for row in rows], dtype=np.float64), scores


def _histogram(anomalous: Floats, scores: Floats) -> Chart:
    edges = np.linspace(0, 1, _BINS + 1)
    normal, positive = (np.histogram(scores[anomalous == kind], bins=edges)[0] for kind in (0, 1))
    highest = max(int(np.max(normal)), int(np.max(positive)), 1)
    gap = (RIGHT - LEFT) / _BINS
    tops = (
        (kind, round(LEFT + gap * (place + shift), 2), _y(count / highest))
        for kind, counts, shift in (("normal", normal, 0.04), ("anomalous", positive, 0.52))
        for place, count in enumerate(counts.tolist())
        if count
    )
    share = float(((scores < 0.05) | (scores > 0.95)).mean())
    return Chart(
        title="Scores",
        summary=f"P(yes) of {int((anomalous == 0).sum())} normal and {int(anomalous.sum())} anomalous queries; "
        f"{share:.0%} of them below 0.05 or above 0.95",
        x_label="P(yes)",
        y_label="queries",
        x_ticks=_UNIT_X,
        y_ticks=tuple((_y(count / highest), str(count)) for count in sorted({0, highest // 2, highest})),
        bars=tuple((kind, x, y, round(gap * 0.44, 2), round(BOTTOM - y, 2)) for kind, x, y in tops),
    )


def _roc_points(anomalous: Floats, scores: Floats) -> str:
    from sklearn.metrics import roc_curve

    if anomalous.min() == anomalous.max():
        return ""
    false_positive, true_positive, _ = roc_curve(anomalous, scores)
    return _points(false_positive.tolist(), true_positive.tolist())


def _points(xs: Sequence[float], ys: Sequence[float]) -> str:
    return " ".join(f"{_x(x)},{_y(y)}" for x, y in zip(xs, ys, strict=True))


def _roc(run: RunContent, curve: str, others: Sequence[str]) -> Chart | None:
    area = run.shown.pooled.metrics["auroc"].value
    if not curve or area is None:
        return None
    lines = [("diagonal", _points((0, 1), (0, 1))), *(("other", other) for other in others), ("own", curve)]
    return Chart(
        title="ROC",
        summary=f"ROC curve, area {area:.3f}" + ("; the other models in grey" if others else ""),
        x_label="false positive rate",
        y_label="true positive rate",
        x_ticks=_UNIT_X,
        y_ticks=_UNIT_Y,
        lines=tuple(lines),
    )


def _reliability(run: RunContent, anomalous: Floats, scores: Floats) -> Chart:
    # The bins of metrics.calibration_error, so that the picture and the number are of one thing.
    place = np.minimum((scores * _RELIABILITY_BINS).astype(int), _RELIABILITY_BINS - 1)
    sizes = np.bincount(place, minlength=_RELIABILITY_BINS)
    used = sizes > 0
    shares, means = (
        np.bincount(place, weights=values, minlength=_RELIABILITY_BINS)[used] / sizes[used]
        for values in (anomalous, scores)
    )
    radii = 2.0 + 5.0 * np.sqrt(sizes[used] / len(scores))
    error = run.shown.pooled.metrics["calibration_error"].value
    return Chart(
        title="Reliability",
        summary=f"Share of anomalous queries by predicted P(yes), expected calibration error {error:.3f}",
        x_label="mean P(yes)",
        y_label="share anomalous",
        x_ticks=_UNIT_X,
        y_ticks=_UNIT_Y,
        lines=(("diagonal", _points((0, 1), (0, 1))), ("own", _points(means.tolist(), shares.tolist()))),
        dots=tuple(
            ("own", _x(mean), _y(share), round(radius, 2))
            for mean, share, radius in zip(means.tolist(), shares.tolist(), radii.tolist(), strict=True)
        ),
    )
