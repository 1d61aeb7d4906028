"""Metrics of a detector that answers yes (anomalous, the positive class) or no.

All of them work on arrays, so that ten thousand resamples are one call: the metrics of the confusion matrix on counts,
the metrics of scores on one score per pair and one weight per resample and pair. A metric that is not defined (no
answer was positive, a class is absent) is NaN here and n/a in tables, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONFUSION_METRICS",
    "CURVE_METRICS",
    "Confusion",
    "Floats",
    "curve_metrics",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of answers. An unparsed answer is wrong: ``fn`` if the query is anomalous, else ``fp``."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def total(self) -> int:
        """The number of answers."""
        return self.tp + self.fp + self.tn + self.fn

    def counts(self) -> Floats:
        """Return ``(4,)`` counts in the order tp, fp, tn, fn."""
        return np.array([self.tp, self.fp, self.tn, self.fn], dtype=np.float64)


def _ratio(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def accuracy(counts: Floats) -> Floats:
    """Return (tp + tn) / all of counts ``(..., 4)``."""
    tp, _, tn, _ = np.moveaxis(counts, -1, 0)
    return _ratio(tp + tn, counts.sum(axis=-1))


def f1(counts: Floats) -> Floats:
    """Return 2 tp / (2 tp + fp + fn)."""
    tp, fp, _, fn = np.moveaxis(counts, -1, 0)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def precision(counts: Floats) -> Floats:
    """Return tp / (tp + fp)."""
    tp, fp, _, _ = np.moveaxis(counts, -1, 0)
    return _ratio(tp, tp + fp)


def recall(counts: Floats) -> Floats:
    """Return tp / (tp + fn)."""
    tp, _, _, fn = np.moveaxis(counts, -1, 0)
    return _ratio(tp, tp + fn)


def specificity(counts: Floats) -> Floats:
    """Return tn / (tn + fp)."""
    _, fp, tn, _ = np.moveaxis(counts, -1, 0)
    return _ratio(tn, tn + fp)


def balanced_accuracy(counts: Floats) -> Floats:
    """Return the mean of recall and specificity."""
    return (recall(counts) + specificity(counts)) / 2


def mcc(counts: Floats) -> Floats:
    """Return Matthews' correlation of truth and answer, from -1 to 1; a constant answer has none."""
    tp, fp, tn, fn = np.moveaxis(counts, -1, 0)
    return _ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


#: By name, each from counts ``(..., 4)`` to ``(...)``.
CONFUSION_METRICS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "accuracy": accuracy,
    "f1": f1,
    "precision": precision,
    "recall": recall,
    "balanced_accuracy": balanced_accuracy,
    "mcc": mcc,
}

#: Names of the metrics that need a score in every reply.
CURVE_METRICS: Final = ("auroc", "average_precision", "f1_max", "calibration_error")

#: Bins of the expected calibration error.
_BINS: Final = 10


def curve_metrics(anomalous: NDArray[np.bool_], scores: Floats, weights: Floats | None = None) -> dict[str, Floats]:
    """Return the metrics that need a score in every reply.

    ``auroc``: the area under the ROC curve. ``average_precision``: the mean precision over the recall steps.
    ``f1_max``: the best F1 of any threshold, chosen on the data itself: an upper bound, as papers report it.
    ``calibration_error``: |share anomalous - mean score|, averaged over ten bins of equal width; NaN if a score lies
    outside [0, 1], since distances and logits rank but are no probabilities.

    Args:
        anomalous: ``(pairs,)``.
        scores: ``(pairs,)``.
        weights: ``(resamples, pairs)``: how often each pair counts; once by default, as a single resample.

    Returns:
        ``(resamples,)`` by the names of ``CURVE_METRICS``; NaN where a resample lacks a class.
    """
    order = np.argsort(-scores, kind="stable")
    positive, ordered = anomalous[order], scores[order]
    weights = np.ones((1, len(scores))) if weights is None else weights[:, order]
    ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])  # the last pair of each distinct score
    total = np.cumsum(weights, axis=1)[:, ends]
    hits = np.cumsum(weights * positive, axis=1)[:, ends]
    found, both = hits[:, -1:], (hits[:, -1] > 0) & (hits[:, -1] < total[:, -1])
    gained = np.diff(hits, axis=1, prepend=0.0)
    missed = np.diff(total, axis=1, prepend=0.0) - gained
    # A normal pair loses to the anomalous pairs above it, and ties with half of those of the same score.
    wins = np.einsum("ij,ij->i", missed, hits - gained / 2)
    values = {
        "auroc": _ratio(wins, hits[:, -1] * (total[:, -1] - hits[:, -1])),
        "average_precision": _ratio(np.einsum("ij,ij->i", gained, np.nan_to_num(_ratio(hits, total))), hits[:, -1]),
        "f1_max": _ratio(2 * hits, total + found).max(axis=1),
    }
    values = {name: np.where(both, value, np.nan) for name, value in values.items()}
    return values | {"calibration_error": _calibration_error(positive, ordered, weights)}


def _calibration_error(anomalous: NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return np.full(len(weights), np.nan)
    place = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    gaps = weights @ ((anomalous - scores)[:, None] * (place[:, None] == np.arange(_BINS)))
    return np.asarray(np.abs(gaps).sum(axis=1) / weights.sum(axis=1), dtype=np.float64)
