"""Metrics against scikit-learn, and what is not defined."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from lad_reasoner.evaluation.metrics import curve_metrics
from lad_reasoner.evaluation.statistics import Bootstrap
from lad_reasoner.support.confusion import CONFUSION_METRICS, Confusion

SKLEARN = {
    "accuracy": sk.accuracy_score,
    "f1": sk.f1_score,
    "precision": sk.precision_score,
    "recall": sk.recall_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "mcc": sk.matthews_corrcoef,
}


def calibration_error(anomalous: np.ndarray, scores: np.ndarray) -> float:
    return curve_metrics(anomalous, scores)["calibration_error"]


labels = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(labels)
@settings(max_examples=200, deadline=None)
def test_confusion_metrics_are_those_of_scikit_learn(rows: list[tuple[bool, bool]]) -> None:
    truth, said = (np.array(column) for column in zip(*rows, strict=True))
    tn, fp, fn, tp = sk.confusion_matrix(truth, said, labels=[False, True]).ravel()
    counts = Confusion(tp=int(tp), fp=int(fp), tn=int(tn), fn=int(fn)).counts()
    for name, function in CONFUSION_METRICS.items():
        ours = float(function(counts))
        if math.isnan(ours):  # scikit-learn puts 0 (or 1) there, with a warning
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert ours == pytest.approx(float(SKLEARN[name](truth, said)), abs=1e-12), name


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["yes", "no", None])), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_an_unparsed_answer_is_a_third_one_for_the_correlation_and_a_wrong_one_elsewhere(
    rows: list[tuple[bool, str | None]],
) -> None:
    right = {True: "yes", False: "no"}
    cells = np.zeros(6)
    for anomalous, said in rows:
        cells[(0 if said == "yes" else 3) if anomalous else (2 if said == "no" else 1)] += 1
        if said is None:
            cells[4 if anomalous else 5] += 1
    ours = {name: float(function(cells)) for name, function in CONFUSION_METRICS.items()}
    assert ours["accuracy"] == pytest.approx(sum(right[truth] == said for truth, said in rows) / len(rows))
    wrong = Confusion(*map(int, cells[:4])).counts()
    for name in set(CONFUSION_METRICS) - {"mcc"}:
        assert ours[name] == pytest.approx(float(CONFUSION_METRICS[name](wrong)), nan_ok=True)
    if len({truth for truth, _ in rows}) == 1 or len({said for _, said in rows}) == 1:
        assert math.isnan(ours["mcc"])
        return
    truths, answers = zip(*((right[truth], str(said)) for truth, said in rows), strict=True)
    assert ours["mcc"] == pytest.approx(sk.matthews_corrcoef(truths, answers), abs=1e-12)


@pytest.mark.parametrize(
    ("matrix", "undefined"),
    [
        (Confusion(0, 0, 0, 0), set(CONFUSION_METRICS)),
        (
            Confusion(0, 0, 5, 0),
            {"f1", "precision", "recall", "balanced_accuracy", "mcc"},
        ),  # nothing anomalous, none claimed
        (Confusion(0, 0, 5, 2), {"precision", "mcc"}),  # nothing claimed
        (Confusion(3, 0, 0, 1), {"balanced_accuracy", "mcc"}),  # nothing normal
        (Confusion(0, 2, 3, 0), {"recall", "balanced_accuracy", "mcc"}),
        (Confusion(1, 1, 1, 1), set()),
    ],
)
def test_what_is_not_defined_is_nan_and_not_zero(matrix: Confusion, undefined: set[str]) -> None:
    found = {name for name, function in CONFUSION_METRICS.items() if math.isnan(function(matrix.counts()))}
    assert found == undefined


def test_arrays_of_counts_are_scored_row_by_row() -> None:
    counts = np.random.default_rng(0).integers(0, 9, (50, 4)).astype(float)
    for function in CONFUSION_METRICS.values():
        np.testing.assert_array_equal(function(counts), [function(row) for row in counts])


def plain_calibration_error(anomalous: np.ndarray, scores: np.ndarray) -> float:
    error = 0.0
    for place in range(10):
        inside = (scores >= place / 10) & ((scores < (place + 1) / 10) | (place == 9))
        if inside.any():
            error += inside.mean() * abs(anomalous[inside].mean() - scores[inside].mean())
    return error


@given(st.integers(0, 2**32), st.integers(2, 80))
@settings(max_examples=80, deadline=None)
def test_every_metric_of_scores_in_a_resample_is_that_of_scikit_learn(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    anomalous, scores = rng.random(count) < 0.5, rng.integers(0, 8, count) / 8  # with ties
    ours = Bootstrap(3, seed).curves(anomalous, scores, np.arange(count))
    for row, picks in enumerate(np.random.default_rng(seed).integers(0, count, (3, count))):
        truth, said = anomalous[picks], scores[picks]
        expected = {"calibration_error": plain_calibration_error(truth, said)}
        if len(set(truth)) == 2:
            expected["auroc"] = sk.roc_auc_score(truth, said)
            expected["average_precision"] = sk.average_precision_score(truth, said)
            expected["f1_max"] = max(sk.f1_score(truth, said >= threshold) for threshold in set(said))
        for name, values in ours.items():
            if name in expected:
                assert values[row] == pytest.approx(expected[name], abs=1e-12), name
            else:
                assert math.isnan(values[row]), name


def test_the_metrics_of_the_data_are_those_of_one_resample_that_holds_each_pair_once() -> None:
    rng = np.random.default_rng(1)
    anomalous, scores = rng.random(70) < 0.4, rng.random(70)
    once = curve_metrics(anomalous, scores)
    best = max(sk.f1_score(anomalous, scores >= threshold) for threshold in scores)
    assert once["f1_max"] == pytest.approx(best, abs=1e-12)
    assert once["auroc"] == pytest.approx(sk.roc_auc_score(anomalous, scores), abs=1e-12)


def test_curve_metrics_need_both_classes() -> None:
    values = curve_metrics(np.array([True, True]), np.array([0.1, 0.9]))
    for name in ("auroc", "average_precision", "f1_max"):
        assert math.isnan(values[name])


def test_calibration_error_is_zero_for_honest_and_large_for_boastful_scores() -> None:
    anomalous = np.array([True, False, True, False])
    assert calibration_error(anomalous, np.full(4, 0.5)) == 0
    assert calibration_error(anomalous, np.ones(4)) == 0.5
    assert calibration_error(~anomalous, anomalous.astype(float)) == 1.0


@pytest.mark.parametrize("scores", [[-3.0, 12.5], [0.5, 1.5]])
def test_scores_that_are_no_probabilities_rank_and_have_no_calibration(scores: list[float]) -> None:
    anomalous = np.array([False, True])
    assert curve_metrics(anomalous, np.array(scores))["auroc"] == 1.0
    assert math.isnan(calibration_error(anomalous, np.array(scores)))
