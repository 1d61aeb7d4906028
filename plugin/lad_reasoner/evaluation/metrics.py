"""Metrics of a detector's scores, one score per pair and one weight per resample and pair.

Ten thousand resamples are one call. A metric that is not defined (a class is absent) is NaN here and n/a in tables,
never 0. The metrics of the answers are in `support/confusion.py`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lad_reasoner.support.confusion import Floats

__all__ = ["CURVE_METRICS", "curve_metrics", "sorted_curve_metrics"]

#: Names of the metrics that need a score in every reply.
CURVE_METRICS: Final = ("auroc", "average_precision", "f1_max", "calibration_error")

#: Bins of the expected calibration error.
_BINS: Final = 10


def curve_metrics(anomalous: NDArray[np.bool_], scores: Floats) -> dict[str, float]:
    """Return the metrics that need a score in every reply.

    ``auroc``: the area under the ROC curve. ``average_precision``: the mean precision over the recall steps.
    ``f1_max``: the best F1 of any threshold, chosen on the data itself: an upper bound, as papers report it.
    ``calibration_error``: |share anomalous - mean score|, averaged over ten bins of equal width; NaN if a score lies
    outside [0, 1], since distances and logits rank but are no probabilities.

    Args:
        anomalous: ``(pairs,)``.
        scores: ``(pairs,)``.

    Returns:
        By the names of ``CURVE_METRICS``; NaN where a class is absent.
    """
    order = np.argsort(-scores, kind="stable")
    values = sorted_curve_metrics(anomalous[order], scores[order], np.ones((1, len(scores))))
    return {name: float(value[0]) for name, value in values.items()}


def sorted_curve_metrics(anomalous: NDArray[np.bool_], scores: Floats, weights: Floats) -> dict[str, Floats]:
    """Return `curve_metrics` of pairs in falling order of their scores, ``(resamples,)`` each.

    ``weights``, ``(resamples, pairs)``, states how often each pair counts.
    """
    gained = weights * anomalous
    hits, total = np.cumsum(gained, axis=1), np.cumsum(weights, axis=1)
    ends = np.r_[scores[1:] != scores[:-1], True]  # the last pair of each distinct score
    if not ends.all():
        hits, total = hits[:, ends], total[:, ends]
        gained, weights_at = np.diff(hits, axis=1, prepend=0.0), np.diff(total, axis=1, prepend=0.0)
    else:
        weights_at = weights
    found, every = hits[:, -1].copy(), total[:, -1].copy()
    missed = weights_at - gained
    # A normal pair loses to the anomalous pairs above it, and ties with half of those of the same score.
    wins = np.einsum("ij,ij->i", missed, hits) - np.einsum("ij,ij->i", missed, gained) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        best = 2 * (hits / (total + found[:, None])).max(axis=1)
        np.divide(hits, total, out=hits, where=total > 0)  # from here on the precision
        values = {
            "auroc": wins / (found * (every - found)),
            "average_precision": np.einsum("ij,ij->i", gained, hits) / found,
            "f1_max": best,
        }
    both = (found > 0) & (found < every)
    values = {name: np.where(both, value, np.nan) for name, value in values.items()}
    return values | {"calibration_error": _calibration_error(anomalous, scores, weights)}


def _calibration_error(anomalous: NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return np.full(len(weights), np.nan)
    place = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    starts = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])  # scores fall, so each bin is one run
    gaps = np.add.reduceat(weights * (anomalous - scores), starts, axis=1)
    return np.asarray(np.abs(gaps).sum(axis=1) / weights.sum(axis=1), dtype=np.float64)
