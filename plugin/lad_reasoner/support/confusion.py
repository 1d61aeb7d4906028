"""Metrics of a confusion matrix, for a detector that answers yes (anomalous, the positive class) or no.

All of them work on arrays of counts (tp, fp, tn, fn and, if known, how many of fn and of fp are unparsed answers), so
that ten thousand resamples are one call. A metric that is not defined (no answer was positive) is NaN here and n/a in
tables, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFUSION_METRICS", "Confusion", "Floats", "f1", "mcc"]

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
    tp, fp, tn, fn, *_ = np.moveaxis(counts, -1, 0)
    return _ratio(tp + tn, tp + fp + tn + fn)


def f1(counts: Floats) -> Floats:
    """Return 2 tp / (2 tp + fp + fn)."""
    tp, fp, _, fn, *_ = np.moveaxis(counts, -1, 0)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def precision(counts: Floats) -> Floats:
    """Return tp / (tp + fp)."""
    tp, fp, *_ = np.moveaxis(counts, -1, 0)
    return _ratio(tp, tp + fp)


def recall(counts: Floats) -> Floats:
    """Return tp / (tp + fn)."""
    tp, _, _, fn, *_ = np.moveaxis(counts, -1, 0)
    return _ratio(tp, tp + fn)


def specificity(counts: Floats) -> Floats:
    """Return tn / (tn + fp)."""
    _, fp, tn, *_ = np.moveaxis(counts, -1, 0)
    return _ratio(tn, tn + fp)


def balanced_accuracy(counts: Floats) -> Floats:
    """Return the mean of recall and specificity."""
    return (recall(counts) + specificity(counts)) / 2


def mcc(counts: Floats) -> Floats:
    """Return Matthews' correlation of truth and answer, from -1 to 1; a constant answer has none.

    An unparsed answer is neither yes nor no. It counts as a third answer, as in the correlation's form for several
    classes (Gorodkin, 2004): counted as the opposite of the truth, unreadable replies alone would give -1.
    """
    tp, fp, tn, fn, *unparsed = np.moveaxis(counts, -1, 0)
    of_anomalous, of_normal = unparsed or (0, 0)
    anomalous, normal, none = tp + fn, tn + fp, of_anomalous + of_normal
    yes, no, total = tp + fp - of_normal, tn + fn - of_anomalous, anomalous + normal
    shared = (tp + tn) * total - yes * anomalous - no * normal
    spread = (total**2 - yes**2 - no**2 - none**2) * (total**2 - anomalous**2 - normal**2)
    return _ratio(shared, np.sqrt(spread))


#: By name, each from counts ``(..., 4)`` or ``(..., 6)`` to ``(...)``.
CONFUSION_METRICS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "accuracy": accuracy,
    "f1": f1,
    "precision": precision,
    "recall": recall,
    "balanced_accuracy": balanced_accuracy,
    "mcc": mcc,
}
