"""What the numbers can tell: bootstrap intervals, exact paired tests, and their correction for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lad_reasoner.evaluation.metrics import Floats

__all__ = ["LEVEL", "holm", "interval", "mcnemar", "resample_aurocs", "resample_counts", "two_proportions"]

#: Of every interval.
LEVEL: Final = 0.95

#: Of the resamples, that may leave a metric undefined before its interval is given up.
_UNDEFINED_SHARE: Final = 0.01

#: Cells of the matrix of drawn pairs held at once: small enough for a processor's cache.
_DRAWS_AT_ONCE: Final = 200_000


def resample_counts(rows: Floats, *, resamples: int, rng: np.random.Generator) -> Floats:
    """Draw bootstrap samples of clusters and add up their counts.

    Drawing n clusters with replacement and counting how often each distinct row was drawn is one multinomial draw, so
    nothing of the size of the data is drawn at all.

    Args:
        rows: ``(clusters, counts)``: what each cluster adds. A cluster is all that was asked about one query.
        resamples: How many samples.
        rng: Source of chance.

    Returns:
        ``(resamples, counts)``.
    """
    distinct, times = np.unique(rows, axis=0, return_counts=True)
    step = max(1, _DRAWS_AT_ONCE // len(distinct))
    sums = np.empty((resamples, rows.shape[1]))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        sums[start : start + size] = rng.multinomial(len(rows), times / len(rows), size=size) @ distinct
    return sums


def resample_aurocs(
    anomalous: NDArray[np.bool_],
    scores: Floats,
    clusters: NDArray[np.int64],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> Floats:
    """Draw bootstrap samples of clusters and return the AUROC of each.

    Args:
        anomalous: ``(pairs,)``.
        scores: ``(pairs,)``.
        clusters: ``(pairs,)``: the index, from 0, of the cluster each pair belongs to.
        resamples: How many samples.
        rng: Source of chance.

    Returns:
        ``(resamples,)``; NaN where a sample lacks a class.
    """
    order = np.argsort(scores, kind="stable")
    normal, clusters, ordered = ~anomalous[order], clusters[order], scores[order]
    # Of each pair, how many pairs score less, and how many score no more.
    less, no_more = (np.searchsorted(ordered, ordered, side=side) for side in ("left", "right"))
    count = int(clusters.max()) + 1
    step = max(1, _DRAWS_AT_ONCE // count)
    parts = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        picks = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        drawn = np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count)
        weights = np.take(drawn.astype(np.float64), clusters, axis=1)
        negative = weights * normal
        beaten = np.zeros((rows, len(scores) + 1))
        np.cumsum(negative, axis=1, out=beaten[:, 1:])
        # A normal pair counts fully for the anomalous ones above it, and half for those of the same score.
        wins = np.take(beaten, less, axis=1) + np.take(beaten, no_more, axis=1)
        weights -= negative
        product = 2 * weights.sum(axis=1) * beaten[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(np.where(product > 0, np.einsum("ij,ij->i", weights, wins) / product, np.nan))
    return np.concatenate(parts)


def interval(values: Floats) -> tuple[float, float]:
    """Return the percentile interval of bootstrap values, or NaN where the bootstrap cannot tell.

    It cannot where the metric is undefined in over 1% of the resamples (leaving those out would make the interval that
    of another quantity), nor where every resample is the same: data without any error say nothing about rare ones.
    """
    if np.isnan(values).mean() > _UNDEFINED_SHARE or np.nanmin(values) == np.nanmax(values):
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p value of McNemar's test.

    Args:
        only_first: Pairs that only the first model answers rightly.
        only_second: Pairs that only the second does.

    Example:
        >>> mcnemar(0, 0), mcnemar(1, 9)
        (1.0, 0.021484375)
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values: the chance of any false claim among all comparisons stays below each.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def two_proportions(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float, float]:
    """Return the difference of two shares and its 95% interval (Newcombe's score method, independent samples).

    For two rows of a printed table, whose pairing is unknown.

    Args:
        first: Right answers, and how many were asked.
        second: The same for the other model.
    """
    from scipy.stats import binomtest

    shares, lows, highs = [], [], []
    for right, asked in (first, second):
        bounds = binomtest(right, asked).proportion_ci(LEVEL, method="wilson")
        shares.append(right / asked)
        lows.append(bounds.low)
        highs.append(bounds.high)
    difference = shares[0] - shares[1]
    low = difference - np.hypot(shares[0] - lows[0], highs[1] - shares[1])
    high = difference + np.hypot(highs[0] - shares[0], shares[1] - lows[1])
    return float(difference), float(low), float(high)
