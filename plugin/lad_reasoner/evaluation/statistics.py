"""Bootstrap intervals, exact intervals and paired tests, and their correction for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lad_reasoner.evaluation.metrics import CURVE_METRICS, sorted_curve_metrics
from lad_reasoner.support.confusion import Floats
from lad_reasoner.support.errors import UsageError

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "Bootstrap",
    "Estimate",
    "Unanimous",
    "estimate",
    "exact_interval",
    "holm",
    "interval",
    "kappa",
    "mcnemar",
]

#: Of every interval.
LEVEL: Final = 0.95

#: Bootstrap samples of every interval; wherever this is the default, 0 gives no intervals.
RESAMPLES: Final = 10_000

#: The share of resamples that may leave a metric undefined before its interval is given up.
_UNDEFINED_SHARE: Final = 0.01

#: Cells of the matrix of sampled pairs held at once: small enough for a processor's cache.
_DRAWS_AT_ONCE: Final = 200_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95% interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Unanimous:
    """A share that the data show only as 0 or 1, so that a bootstrap cannot tell how rare the other case is.

    Attributes:
        trials: How many independent trials there were.
        right: Whether all of them were right; otherwise all were wrong.
        shape: From the share of right trials to the metric.
    """

    trials: float
    right: bool
    shape: Callable[[Floats], Floats] = lambda share: share

    def estimate(self) -> Estimate:
        """Return the metric with Clopper and Pearson's interval."""
        value, *bounds = self.shape(np.array([float(self.right), *exact_interval(self.trials, right=self.right)]))
        return Estimate(float(value), float(min(bounds)), float(max(bounds)))


def estimate(value: float, drawn: Floats | None = None) -> Estimate:
    """Return a value, NaN where not defined, with the interval of its bootstrap values ``(resamples,)``, if any."""
    low, high = (math.nan, math.nan) if drawn is None or not len(drawn) or math.isnan(value) else interval(drawn)
    return Estimate(*(None if math.isnan(number) else number for number in (value, low, high)))


class Bootstrap:
    """Samples clusters with replacement; a cluster is everything about one query.

    Args:
        resamples: The number of bootstrap samples; 0 gives no intervals.
        seed: Random seed, or its generator.

    Raises:
        UsageError: The number or the seed is negative.
    """

    def __init__(self, resamples: int = RESAMPLES, seed: int | np.random.Generator = 0) -> None:
        for name, value in (("resamples", resamples), ("seed", seed)):
            if isinstance(value, int) and value < 0:
                raise UsageError(f"{value} is not a number of at least 0", where=f"--{name}")
        self.resamples, self._rng = resamples, np.random.default_rng(seed)

    def proportion(self, rows: Floats) -> Estimate:
        """Return a share with its interval: the bootstrap's, or the exact one where all trials agree.

        ``rows``, ``(clusters, 2)``, holds hits and trials of each cluster.
        """
        hits, trials = rows.sum(axis=0)
        if not trials:
            return Estimate(None)
        if not self.resamples:
            return Estimate(float(hits / trials))
        if hits in {0, trials}:
            return Unanimous(int((rows[:, 1] > 0).sum()), right=bool(hits)).estimate()
        sums = self.counts(rows)
        with np.errstate(invalid="ignore", divide="ignore"):
            return estimate(float(hits / trials), sums[:, 0] / sums[:, 1])

    def counts(self, rows: Floats) -> Floats:
        """Return the summed counts of sampled clusters, ``(resamples, n)``, from those of each, ``(clusters, n)``.

        How often each distinct row is chosen is one multinomial sample, so nothing of the size of the data is sampled.
        """
        distinct, times = np.unique(rows, axis=0, return_counts=True)
        step = max(1, _DRAWS_AT_ONCE // len(distinct))
        sums = np.empty((self.resamples, rows.shape[1]))
        for start in range(0, self.resamples, step):
            size = min(step, self.resamples - start)
            sums[start : start + size] = self._rng.multinomial(len(rows), times / len(rows), size=size) @ distinct
        return sums

    def curves(self, anomalous: NDArray[np.bool_], scores: Floats, clusters: NDArray[np.int64]) -> dict[str, Floats]:
        """Return the metrics of the scores of sampled clusters, ``(resamples,)``; NaN where a sample lacks a class.

        Each argument is ``(pairs,)``; ``clusters`` holds the index, from 0, of each pair's cluster.
        """
        order = np.argsort(-scores, kind="stable")
        anomalous, scores, clusters = anomalous[order], scores[order], clusters[order]
        count = int(clusters.max()) + 1
        step = max(1, _DRAWS_AT_ONCE // count)
        parts = []
        for start in range(0, self.resamples, step):
            rows = min(step, self.resamples - start)
            picks = self._rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
            times = np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count)
            weights = np.take(times.astype(np.float64), clusters, axis=1)
            parts.append(sorted_curve_metrics(anomalous, scores, weights))
        return {name: np.concatenate([part[name] for part in parts]) for name in CURVE_METRICS}


def interval(values: Floats) -> tuple[float, float]:
    """Return the percentile interval of bootstrap values, or NaN where the bootstrap cannot give one.

    It cannot where the metric is undefined in over 1% of the resamples (leaving those out would make the interval that
    of another quantity), nor where every resample is the same.
    """
    if np.isnan(values).mean() > _UNDEFINED_SHARE or np.nanmin(values) == np.nanmax(values):
        return math.nan, math.nan
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def exact_interval(trials: float, *, right: bool) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a share of 1 (all trials right) or 0 (all wrong).

    Example:
        >>> [round(bound, 4) for bound in exact_interval(10, right=True)]
        [0.6915, 1.0]
    """
    bound = ((1 - LEVEL) / 2) ** (1 / trials)
    return (bound, 1.0) if right else (0.0, 1 - bound)


def kappa(first: Sequence[bool], second: Sequence[bool]) -> float | None:
    """Return Cohen's kappa of two judgements of the same cases; None if either is constant.

    Example:
        >>> kappa([True, True, False, False], [True, True, False, True]), kappa([True], [True])
        (0.5, None)
    """
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(first, second)) if len(set(first)) == len(set(second)) == 2 else None


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p value of McNemar's test, from the pairs that only one model answers correctly.

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
