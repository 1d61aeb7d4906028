"""The protocol behind the paper's Table 1, recovered from the printed figures."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lad_reasoner.evaluation.paper import LOCO_TEST_COUNTS, TABLE_1, Figures, PaperRow, recover, recovered_rows
from lad_reasoner.evaluation.score import score_run
from lad_reasoner.evaluation.table import percent


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
