"""Intervals that cover, exact tests, corrections."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_reasoner.evaluation.metrics import CONFUSION_METRICS
from lad_reasoner.evaluation.statistics import holm, interval, mcnemar, resample_counts, two_proportions


@pytest.mark.parametrize(("metric", "truth"), [("accuracy", 0.6), ("f1", 0.6 / 1.0)])
def test_intervals_cover_the_truth_at_the_nominal_rate(metric: str, truth: float) -> None:
    rng = np.random.default_rng(5)
    shares = np.array([0.3, 0.2, 0.3, 0.2])  # tp, fp, tn, fn: accuracy 0.6, F1 0.6 / (0.6 + 0.4)
    covered = 0
    for _ in range(600):
        rows = np.eye(4)[rng.choice(4, size=200, p=shares)]
        low, high = interval(CONFUSION_METRICS[metric](resample_counts(rows, resamples=400, rng=rng)))
        covered += low <= truth <= high
    assert 0.92 <= covered / 600 <= 0.975


def test_intervals_of_clustered_data_cover_only_if_clusters_are_drawn_whole() -> None:
    rng = np.random.default_rng(6)
    covered = {"clustered": 0, "ignored": 0}
    for _ in range(300):
        right = rng.random(60) < 0.7
        clusters = np.outer(right, [8, 0, 0, 0]) + np.outer(~right, [0, 0, 0, 8])  # eight like answers a query
        flat = np.repeat(clusters / 8, 8, axis=0)
        for name, rows in (("clustered", clusters), ("ignored", flat)):
            low, high = interval(CONFUSION_METRICS["accuracy"](resample_counts(rows, resamples=300, rng=rng)))
            covered[name] += low <= 0.7 <= high
    assert covered["clustered"] / 300 > 0.9
    assert covered["ignored"] / 300 < 0.7


def test_resampled_counts_are_those_of_drawing_rows_one_by_one() -> None:
    rows = np.array([[1, 0, 2, 0], [0, 3, 0, 0], [1, 0, 2, 0], [0, 0, 0, 5]], dtype=float)
    fast = resample_counts(rows, resamples=40_000, rng=np.random.default_rng(0))
    picks = np.random.default_rng(1).integers(0, 4, (40_000, 4))
    slow = rows[picks].sum(axis=1)
    np.testing.assert_allclose(fast.mean(axis=0), slow.mean(axis=0), atol=0.06)
    np.testing.assert_allclose(np.cov(fast.T), np.cov(slow.T), rtol=0.05, atol=0.05)


def test_memory_of_resampled_counts_grows_with_the_counts_alone() -> None:
    import tracemalloc

    rows = np.arange(4000, dtype=float).reshape(1000, 4)  # every cluster unlike every other
    tracemalloc.start()
    sums = resample_counts(rows, resamples=5_000, rng=np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000  # all draws at once: 40 MB
    at_once = np.random.default_rng(0).multinomial(1000, np.full(1000, 1 / 1000), size=5_000) @ rows
    np.testing.assert_array_equal(sums, at_once)


def test_no_interval_where_the_bootstrap_cannot_tell() -> None:
    assert all(map(math.isnan, interval(np.ones(100))))  # never a wrong answer: nothing is known about rare ones
    assert all(map(math.isnan, interval(np.r_[np.full(2, np.nan), np.linspace(0, 1, 98)])))  # undefined too often


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_exact_binomial_tail(first: int, second: int) -> None:
    count = first + second
    tail = sum(math.comb(count, k) for k in range(min(first, second) + 1)) / 2**count
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, adjusted, strict=True))
    assert max(adjusted) <= 1
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)
    assert adjusted[order[0]] == pytest.approx(min(1.0, p_values[order[0]] * len(p_values)))


def test_the_interval_of_two_proportions_is_newcombes() -> None:
    # Newcombe (1998), method 10, example (a): 56/70 against 48/80.
    difference, low, high = two_proportions((56, 70), (48, 80))
    assert difference == pytest.approx(0.2)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)
