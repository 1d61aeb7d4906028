"""Metrics of a detector that says yes (anomalous, the positive class) or no.

Those that come from the confusion matrix work on arrays of counts, so that ten thousand resamples are one call. A
metric that is not defined (no answer was positive, a class is absent) is NaN here and n/a in tables, never 0.
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
    "auroc",
    "average_precision",
    "calibration_error",
    "f1_max",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of answers; an unparsed one is wrong: ``fn`` if the query is anomalous, else ``fp``."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def total(self) -> int:
        """How many answers."""
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


#: By name, each from counts ``(..., 4)`` to ``(...)``.
CONFUSION_METRICS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "accuracy": accuracy,
    "f1": f1,
    "precision": precision,
    "recall": recall,
    "balanced_accuracy": balanced_accuracy,
}


def auroc(anomalous: NDArray[np.bool_], scores: Floats) -> float:
    """Return the area under the ROC curve; NaN if a class is absent."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(anomalous, scores)) if _both(anomalous) else float("nan")


def average_precision(anomalous: NDArray[np.bool_], scores: Floats) -> float:
    """Return the average precision; NaN if a class is absent."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(anomalous, scores)) if _both(anomalous) else float("nan")


def f1_max(anomalous: NDArray[np.bool_], scores: Floats) -> float:
    """Return the best F1 of any threshold, chosen on the very data: an upper bound, as papers report it."""
    from sklearn.metrics import precision_recall_curve

    if not _both(anomalous):
        return float("nan")
    precisions, recalls, _ = precision_recall_curve(anomalous, scores)
    with np.errstate(invalid="ignore"):
        return float(np.nanmax(2 * precisions * recalls / (precisions + recalls)))


def calibration_error(anomalous: NDArray[np.bool_], scores: Floats, *, bins: int = 10) -> float:
    """Return the expected calibration error: |share anomalous - mean score|, averaged over equal-width bins.

    NaN where a score is outside [0, 1]: another system's distances or logits rank, and are no probabilities.
    """
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return float("nan")
    place = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=anomalous - scores, minlength=bins)
    return float(np.abs(gaps).sum() / len(scores))


#: By name, each from labels and scores ``(pairs,)`` to a number.
CURVE_METRICS: Final[dict[str, Callable[[NDArray[np.bool_], Floats], float]]] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "f1_max": f1_max,
    "calibration_error": calibration_error,
}


def _both(anomalous: NDArray[np.bool_]) -> bool:
    return bool(anomalous.any()) and not bool(anomalous.all())
