"""The protocol behind the paper's Table 1, recovered from the printed figures."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lad_reasoner.evaluation.paper import (
    LOCO_TEST_COUNTS,
    TABLE_1,
    Figures,
    PaperRow,
    mcnemar_bounds,
    pooled_matrix,
    recover,
    recovered_rows,
)
from lad_reasoner.evaluation.score import score_run
from lad_reasoner.support.percent import percent


def test_the_table_has_84_figures() -> None:
    assert len(TABLE_1) == 7
    assert sum(2 * (1 + len(row.categories)) for row in TABLE_1) == 84


def test_every_cell_has_exactly_one_confusion_matrix_without_structural_anomalies() -> None:
    found = [cell for row in recovered_rows().values() for cell in row.values()]
    assert len(found) == 35
    assert all(len(matrices) == 1 for matrices in found)


def test_with_structural_anomalies_31_of_35_cells_have_none() -> None:
    counts = {name: (good, logical + structural) for name, (good, logical, structural) in LOCO_TEST_COUNTS.items()}
    found = [cell for row in recovered_rows(counts).values() for cell in row.values()]
    assert sum(not matrices for matrices in found) == 31


def test_the_search_finds_every_matrix_that_a_plain_search_finds() -> None:
    figures = Figures("66.7", "66.7")
    plain = [
        (tp, tn)
        for tp in range(10)
        for tn in range(7)
        if abs((tp + tn) / 15 - 0.667) <= 0.0005 and abs(2 * tp / (tp + 15 - tn) - 0.667) <= 0.0005
    ]
    assert plain
    found = sorted((matrix.tp, matrix.tn) for matrix in recover(figures, normal=6, anomalous=9))
    assert found == sorted(plain)


@pytest.mark.parametrize("row", TABLE_1, ids=lambda row: row.model)
def test_recovered_matrices_as_predictions_give_every_printed_figure(row: PaperRow, write_run) -> None:
    matrices = {category: found[0] for category, found in recovered_rows()[row.model].items()}
    # Structural anomalies in the data, all answered wrongly: the default protocol must leave them out.
    predictions, data = write_run(matrices, structural=3)
    run = score_run(predictions, data, resamples=10)
    assert run.pooled.pairs == 1136
    overall = run.pooled.metrics if row.average == "pooled" else run.macro
    printed = {"overall": row.overall, **row.categories}
    measured = {"overall": overall, **{name: group.metrics for name, group in run.categories.items()}}
    assert list(run.categories) == list(row.categories)
    for name, figures in printed.items():
        assert Decimal(percent(measured[name]["accuracy"].value)) == Decimal(figures.accuracy), name
        assert Decimal(percent(measured[name]["f1"].value)) == Decimal(figures.f1), name


@pytest.mark.parametrize("row", TABLE_1, ids=lambda row: row.model)
def test_the_other_average_does_not_give_the_printed_overall(row: PaperRow, write_run) -> None:
    predictions, data = write_run({name: found[0] for name, found in recovered_rows()[row.model].items()})
    run = score_run(predictions, data, resamples=10)
    other = run.macro if row.average == "pooled" else run.pooled.metrics
    assert Decimal(percent(other["f1"].value)) != Decimal(row.overall.f1)


def test_the_docs_page_shows_the_recovered_matrices(repository) -> None:
    page = (repository / "docs" / "protocol.md").read_text(encoding="utf-8")
    for model, cells in recovered_rows().items():
        matrices = [found[0] for found in cells.values()]
        shown = [f"{matrix.tp} {matrix.fp} {matrix.tn} {matrix.fn}" for matrix in matrices]
        assert f"| {model} | {' | '.join(shown)} |" in page


#: LAD-Reasoner against each other row, from docs/protocol.md.
BOUNDS = {
    "APRIL-GAN (score > 0.5)": (None, 8.3e-4),
    "AnomalyGPT (its text)": (None, 8.3e-4),
    "Qwen2.5-VL-3B": (0.29, 0.51),
    "Qwen2.5-VL-72B": (0.235, 0.45),
    "Qwen2.5-VL-3B-SFT": (None, 8.3e-4),
    "Qwen2.5-VL-3B-GRPO": (0.10, 0.29),
}


@pytest.mark.parametrize("model", BOUNDS)
def test_the_bounds_of_mcnemars_p_hold_for_any_pairing(model: str, repository) -> None:
    low, high = mcnemar_bounds("LAD-Reasoner", model)
    least, most = BOUNDS[model]
    assert high <= most * 1.03
    if least is not None:
        assert low == pytest.approx(least, rel=0.05)
        assert high == pytest.approx(most, rel=0.05)
    page = (repository / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert f"| {model} | {low:.2g} | {high:.2g} |" in page
    import numpy as np
    from scipy.stats import binom

    rng, found = np.random.default_rng(3), []
    cells = [recovered_rows()[name] for name in ("LAD-Reasoner", model)]
    for _ in range(40):
        only_first = only_second = 0
        for one, other in ((cells[0][name][0], cells[1][name][0]) for name in cells[0]):
            for x, y, n in ((one.tp, other.tp, one.tp + one.fn), (one.tn, other.tn, one.tn + one.fp)):
                first, second = np.arange(n) < x, rng.permutation(n) < y
                if rng.random() < 0.5:  # the pairing that agrees most
                    second = np.arange(n) < y
                only_first += int((first & ~second).sum())
                only_second += int((second & ~first).sum())
        tail = binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)
        found.append(min(1.0, 2 * tail))
    assert low * (1 - 1e-9) <= min(found) <= max(found) <= high * (1 + 1e-9)


def test_the_papers_missing_columns_come_from_its_matrices() -> None:
    from lad_reasoner.support.confusion import CONFUSION_METRICS

    found = {row.model: pooled_matrix(row.model) for row in TABLE_1}
    mcc = {name: round(float(CONFUSION_METRICS["mcc"](matrix.counts())), 3) for name, matrix in found.items()}
    assert mcc["Qwen2.5-VL-3B"] == 0.176
    assert mcc["Qwen2.5-VL-72B"] == 0.243
    assert mcc["LAD-Reasoner"] == 0.214
    assert mcc["AnomalyGPT (its text)"] == -0.194
    ours = found["LAD-Reasoner"]
    assert round(100 * (ours.tp + ours.fp) / ours.total, 1) == 59.2
