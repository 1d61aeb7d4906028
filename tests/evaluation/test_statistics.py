"""Intervals that cover, exact tests, corrections."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_reasoner.evaluation.outcomes import JudgedPair, ScoredReply, System
from lad_reasoner.evaluation.score import score_system
from lad_reasoner.evaluation.statistics import (
    Bootstrap,
    exact_interval,
    holm,
    interval,
    mcnemar,
)
from lad_reasoner.pairs.reader import Truth
from lad_reasoner.support.confusion import CONFUSION_METRICS


@pytest.mark.parametrize(("metric", "truth"), [("accuracy", 0.6), ("f1", 0.6 / 1.0)])
def test_intervals_cover_the_truth_at_the_nominal_rate(metric: str, truth: float) -> None:
    rng = np.random.default_rng(5)
    shares = np.array([0.3, 0.2, 0.3, 0.2])  # tp, fp, tn, fn: accuracy 0.6, F1 0.6 / (0.6 + 0.4)
    covered = 0
    for _ in range(600):
        rows = np.eye(4)[rng.choice(4, size=200, p=shares)]
        low, high = interval(CONFUSION_METRICS[metric](Bootstrap(400, rng).counts(rows)))
        covered += low <= truth <= high
    print(f"coverage, 200 rows: {metric} {covered / 600:.3f}")
    assert 0.92 <= covered / 600 <= 0.975


def test_intervals_of_clustered_data_cover_only_if_clusters_are_drawn_whole() -> None:
    rng = np.random.default_rng(6)
    covered = {"clustered": 0, "ignored": 0}
    for _ in range(300):
        right = rng.random(60) < 0.7
        clusters = np.outer(right, [8, 0, 0, 0]) + np.outer(~right, [0, 0, 0, 8])  # eight like answers a query
        flat = np.repeat(clusters / 8, 8, axis=0)
        for name, rows in (("clustered", clusters), ("ignored", flat)):
            low, high = interval(CONFUSION_METRICS["accuracy"](Bootstrap(300, rng).counts(rows)))
            covered[name] += low <= 0.7 <= high
    print("coverage, 60 queries of 8 like answers:", {name: round(count / 300, 3) for name, count in covered.items()})
    assert covered["clustered"] / 300 > 0.9
    assert covered["ignored"] / 300 < 0.7


def test_resampled_counts_are_those_of_drawing_rows_one_by_one() -> None:
    rows = np.array([[1, 0, 2, 0], [0, 3, 0, 0], [1, 0, 2, 0], [0, 0, 0, 5]], dtype=float)
    fast = Bootstrap(40_000).counts(rows)
    picks = np.random.default_rng(1).integers(0, 4, (40_000, 4))
    slow = rows[picks].sum(axis=1)
    np.testing.assert_allclose(fast.mean(axis=0), slow.mean(axis=0), atol=0.06)
    np.testing.assert_allclose(np.cov(fast.T), np.cov(slow.T), rtol=0.05, atol=0.05)


def test_memory_of_resampled_counts_grows_with_the_counts_alone() -> None:
    import tracemalloc

    rows = np.arange(4000, dtype=float).reshape(1000, 4)  # every cluster unlike every other
    tracemalloc.start()
    sums = Bootstrap(5_000).counts(rows)
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


@given(st.integers(1, 500), st.booleans())
def test_the_exact_interval_is_clopper_and_pearsons(trials: int, right: bool) -> None:
    from scipy.stats import binomtest

    bounds = binomtest(trials if right else 0, trials).proportion_ci(0.95, method="exact")
    assert exact_interval(trials, right=right) == pytest.approx((bounds.low, bounds.high), abs=1e-12)


def test_the_interval_of_the_mean_of_categories_covers_with_categories_that_are_all_right() -> None:
    """Five categories of 20 queries, two nearly always right: their bootstrap has no spread."""
    rng, rates, covered, rounds = np.random.default_rng(9), (0.6, 0.7, 0.99, 0.99, 0.5), 0, 200
    for _ in range(rounds):
        rows = []
        for place, rate in enumerate(rates):
            for number in range(20):
                row = _judged(100 * place + number, "yes" if number % 2 else "no", bool(rng.random() < rate))
                rows.append(replace(row, truth=replace(row.truth, category=f"c{place}")))
        found = score_system(System("m", tuple(rows)), "all", resamples=200, seed=0).macro["accuracy"]
        assert found.low < found.value < found.high
        covered += found.low <= np.mean(rates) <= found.high
    print(f"coverage, mean of 5 categories of 20 queries: {covered / rounds:.3f}")
    assert covered / rounds >= 0.91


def test_a_proportion_counts_queries_and_not_replies() -> None:
    rows = np.array([[4.0, 4.0]] * 10)
    found = Bootstrap(100).proportion(rows)
    assert (found.low, found.high) == pytest.approx(exact_interval(10, right=True))
    assert Bootstrap(100).proportion(np.zeros((3, 2))).value is None


RATES = [(0.97, 0.97), (0.995, 0.99), (0.02, 0.03)]  # mostly samples that are all right or all wrong


@pytest.mark.parametrize(("recall", "specificity"), RATES)
def test_intervals_cover_where_most_samples_are_all_right_or_all_wrong(recall: float, specificity: float) -> None:
    """25 anomalous and 25 normal queries: a bootstrap alone has no interval for most of these samples."""
    rng = np.random.default_rng(7)
    f1 = 2 * recall / (1 + recall + 1 - specificity)
    truths = {
        "accuracy": (recall + specificity) / 2,
        "recall": recall,
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": f1,
        "mcc": (recall + specificity - 1) / math.sqrt((recall + 1 - specificity) * (specificity + 1 - recall)),
    }
    covered, without = dict.fromkeys(truths, 0), 0
    rounds = 300
    for _ in range(rounds):
        rows = [
            _judged(number, "yes" if number < 25 else "no", rng.random() < (recall if number < 25 else specificity))
            for number in range(50)
        ]
        metrics = score_system(System("m", tuple(rows)), "all", resamples=300, seed=0).pooled.metrics
        without += metrics["accuracy"].low is None
        for name, truth in truths.items():
            found = metrics[name]
            assert found.low is not None or name in {"f1", "mcc"}, name
            covered[name] += found.low is None or (found.low <= truth + 1e-9 and truth - 1e-9 <= found.high)
    print(
        f"coverage, recall {recall}, specificity {specificity}:", {k: round(n / rounds, 3) for k, n in covered.items()}
    )
    assert without == 0
    # Where a few samples hold an error, a percentile interval of 50 pairs is known to be short.
    assert all(count / rounds >= 0.88 for count in covered.values()), covered


def test_intervals_of_scores_cover_where_most_samples_are_perfect() -> None:
    """Normal scores are below anomalous ones but for one in fifty anomalous queries."""
    rng = np.random.default_rng(8)
    area, rounds = 1 - 0.02, 300
    covered = {"auroc": 0, "average_precision": 0, "f1_max": 0}
    # Over endless data: one in fifty anomalous queries scores lowest of all.
    truth = {
        "auroc": area,
        "average_precision": 0.98 * 1.0 + 0.02 * 0.5,
        "f1_max": 2 * 0.98 / (0.98 + 1),
    }
    for _ in range(rounds):
        rows = []
        for number in range(50):
            anomalous = number < 25
            low = anomalous and rng.random() < 0.02
            score = 0.0 if low else rng.uniform(0.6, 0.9) if anomalous else rng.uniform(0.1, 0.4)
            rows.append(_judged(number, "yes" if anomalous else "no", right=True, score=score))
        metrics = score_system(System("m", tuple(rows)), "all", resamples=300, seed=0).pooled.metrics
        for name in covered:
            covered[name] += metrics[name].low <= truth[name] <= metrics[name].high
    print("coverage, scores:", {name: round(count / rounds, 3) for name, count in covered.items()})
    assert all(count / rounds >= 0.93 for count in covered.values()), covered


def test_intervals_of_scores_cover_for_an_overconfident_model() -> None:
    """50 anomalous and 50 normal queries: anomalous queries score high three times in four, normal ones once."""
    rng, rounds = np.random.default_rng(10), 300
    # Shares of all queries by score: those of anomalous queries, and all. Three in four high scores are right.
    levels, total = np.array([0.99, 0.95, 0.91, 0.09, 0.05, 0.01]), np.cumsum([1 / 6] * 6)
    gained = np.array([0.125] * 3 + [0.125 / 3] * 3)
    hits = np.cumsum(gained)
    missed = 1 / 6 - gained
    truth = {
        "auroc": float(missed @ (hits - gained / 2) / 0.25),
        "average_precision": float(gained @ (hits / total) / 0.5),
        "f1_max": float(np.max(2 * hits / (total + 0.5))),
        "calibration_error": 0.2,  # 0.95 against 0.75, and 0.05 against 0.25
    }
    covered = dict.fromkeys(truth, 0)
    for _ in range(rounds):
        rows = []
        for number in range(100):
            high = rng.random() < (0.75 if number < 50 else 0.25)
            score = rng.choice(levels[:3] if high else levels[3:])
            rows.append(_judged(number, "yes" if number < 50 else "no", right=True, score=float(score)))
        metrics = score_system(System("m", tuple(rows)), "all", resamples=300, seed=0).pooled.metrics
        for name in covered:
            covered[name] += metrics[name].low <= truth[name] <= metrics[name].high
    print("coverage, scores of an overconfident model:", {name: round(n / rounds, 3) for name, n in covered.items()})
    assert all(count / rounds >= 0.9 for count in covered.values()), covered


def _judged(number: int, label: str, right: bool, score: float | None = None) -> JudgedPair:
    answer = label if right else {"yes": "no", "no": "yes"}[label]
    truth = Truth(f"p{number}", "d", "c", label, "logical" if label == "yes" else "good", "x", f"q{number}.png")
    return JudgedPair(truth, (ScoredReply(answer, score=score),))
