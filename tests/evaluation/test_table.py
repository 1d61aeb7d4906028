"""Tables in a terminal: nothing is cut off, and names are text."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from lad_reasoner.commands.lad import main
from lad_reasoner.evaluation.metrics import Confusion
from lad_reasoner.evaluation.table import fit_table


def lines_of(table: Table, width: int) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False).print(table)
    return stream.getvalue().splitlines()


cells = st.lists(
    st.lists(st.from_regex(r"[0-9.]{1,14}", fullmatch=True), min_size=5, max_size=5), min_size=1, max_size=4
)


@given(cells, st.integers(40, 200))
def test_every_figure_is_shown_whole_beside_its_row(rows: list[list[str]], width: int) -> None:
    table = Table(title="figures")
    table.add_column("model", no_wrap=True)
    for place in range(5):
        table.add_column(f"column {place}", justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        table.add_row(f"model {number}", *row, end_section=number == 0)
    parts = fit_table(table, width)
    shown = [lines_of(part, width) for part in parts]
    assert all(len(line) <= width for lines in shown for line in lines)
    for number, row in enumerate(rows):
        found = [line.strip("│ ").split("│")[1:] for lines in shown for line in lines if f"model {number} " in line]
        assert [cell.strip() for line in found for cell in line] == row
    assert sum("figures" in line for lines in shown for line in lines) == 1


def test_a_wide_terminal_has_the_table_in_one_piece() -> None:
    table = Table("a", "b")
    assert fit_table(table, 80) == [table]


def test_external_systems_are_compared_on_the_same_pairs(write_run, tmp_path, capsys) -> None:
    predictions, data = write_run({"screw_bag": Confusion(tp=6, fp=1, tn=9, fn=4)})
    from lad_reasoner.pairs.reader import read_truths

    right = {truth.pair_id: int(truth.label == "yes") for truth in read_truths(data)}
    scores = tmp_path / "scores.csv"
    scores.write_text("pair_id,score\n" + "".join(f"{pair_id},{score}\n" for pair_id, score in right.items()))
    words = ["compare", str(predictions), "--external", f"[/bold]={scores}", "--data", str(data), "--resamples", "50"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--json"])
    assert stop.value.code == 0
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (found["pairs"], found["only_first"], found["only_second"]) == (20, 0, 5)
    assert found["p_value"] == pytest.approx(2 * 0.5**5)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    assert "[/bold]" in capsys.readouterr().out


def test_a_system_that_gives_logits_is_scored(write_run, tmp_path, capsys) -> None:
    from lad_reasoner.pairs.reader import read_truths

    _, data = write_run({"screw_bag": Confusion(tp=6, fp=1, tn=9, fn=4)})
    rows = [f"{truth.query_path},{7.5 if truth.label == 'yes' else -7.5}" for truth in read_truths(data)]
    scores = tmp_path / "logits.csv"
    scores.write_text("\n".join(["path,score", *rows]))
    with pytest.raises(SystemExit) as stop:
        main(["score", "--external", f"logits={scores}", "--threshold", "0", "--data", str(data), "--json"])
    assert stop.value.code == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["pooled"]["metrics"]["auroc"]["value"] == run["pooled"]["metrics"]["accuracy"]["value"] == 1.0
    assert run["pooled"]["metrics"]["calibration_error"]["value"] is None


def test_runs_of_one_name_are_told_apart_and_none_is_compared_with_itself(write_run, tmp_path, capsys) -> None:
    predictions, data = write_run({"screw_bag": Confusion(tp=6, fp=1, tn=9, fn=4)})
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.jsonl").write_bytes(predictions.read_bytes())
    paths = [str(tmp_path / folder / "model.jsonl") for folder in ("one", "two")]
    with pytest.raises(SystemExit):
        main(["compare", *paths, "--data", str(data), "--resamples", "20", "--json"])
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (found["first"], found["second"]) == ("one/model", "two/model")
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(predictions), str(predictions), "--data", str(data)])
    assert stop.value.code == 2
    assert "2 times" in capsys.readouterr().err
