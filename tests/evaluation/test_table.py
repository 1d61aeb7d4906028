"""Tables in a terminal: nothing is cut off, and names are text."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from lad_reasoner.commands.lad import main
from lad_reasoner.evaluation.paper import recovered_rows
from lad_reasoner.support.confusion import Confusion


def run_in_terminal(words: list[str], monkeypatch, capsys, *, width: int = 80) -> list[str]:
    """Return the lines that a command prints in a terminal of a width."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "0")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


LOCO = {name: found[0] for name, found in recovered_rows()["LAD-Reasoner"].items()}


def test_the_score_of_one_file_fits_a_terminal_of_24_lines(write_run, monkeypatch, capsys) -> None:
    predictions, data = write_run(LOCO)
    lines = run_in_terminal(["score", str(predictions), "--data", str(data)], monkeypatch, capsys)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("model is right on 60.4% of 1,136 pairs")
    text = "\n".join(lines)
    assert text.count("(paper)") == 7
    for row in (*LOCO, "all pairs (pooled)", "mean of categories (macro)", "always yes", "always no"):
        assert sum(line.startswith(row) for line in lines) == 1, row
    always = next(line for line in lines if line.startswith("always yes")).split()
    assert always[2:] == ["1136", "49.4", "66.1", "n/a", "100.0", "n/a", "n/a"]
    ours, paper = (next(line for line in lines if line.startswith(name)) for name in ("all pairs", "LAD-Reasoner"))
    assert ours.split()[-4:-2] == ["0.21", "59.2"]
    assert paper.split()[-3:] == ["63.5", "0.21", "59.2"]  # what the paper does not print, from its recovered matrix


def test_the_details_show_every_metric_and_no_abbreviation_of_a_category(write_run, monkeypatch, capsys) -> None:
    predictions, data = write_run(LOCO)
    words = ["score", str(predictions), "--data", str(data), "--resamples", "50", "--details"]
    text = "\n".join(run_in_terminal(words, monkeypatch, capsys, width=200))
    for name in ("balanced accuracy", "average precision", "calibration error", "Matthews correlation", "screw bag"):
        assert name in text
    assert "ECE" not in text
    assert "/ 74.7" in text
    assert "its categories show which average it is" in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_figure_of_the_details_is_shown_whole(write_run, monkeypatch, capsys, width: int) -> None:
    predictions, data = write_run(LOCO)
    words = ["score", str(predictions), "--data", str(data), "--resamples", "50", "--details", "--no-paper"]
    lines = run_in_terminal(words, monkeypatch, capsys, width=width)
    assert max(map(len, lines)) <= width
    for figure in ("62.7", "74.7", "76.8", "52.9", "60.3", "37.2", "236"):
        assert re.search(rf"\b{figure}\b", "\n".join(lines)), figure


def test_runs_with_most_replies_cut_or_unparsed_are_warned_of(write_run, capsys) -> None:
    predictions, data = write_run({"screw_bag": Confusion(tp=6, fp=1, tn=9, fn=4)})
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    for line in lines[:12]:
        line |= {"response": "<think> the bag", "finish_reason": "length", "response_tokens": 64}
    predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit):
        main(["score", str(predictions), "--data", str(data), "--resamples", "20"])
    said = capsys.readouterr().err
    assert "60.0% of the replies of model are cut off at the token limit" in said
    assert "--max-new-tokens" in said
    assert "60.0% of the replies of model have no readable answer" in said
    shutil.copy(predictions, predictions.with_name("twin.jsonl"))
    with pytest.raises(SystemExit):
        main(["compare", *map(str, predictions.parent.glob("*.jsonl")), "--data", str(data), "--resamples", "20"])
    assert "60.0% of the replies of twin are cut off at the token limit" in capsys.readouterr().err


def test_lengths_and_shares_are_those_of_the_replies(write_run, capsys) -> None:
    predictions, data = write_run({"screw_bag": Confusion(tp=6, fp=1, tn=9, fn=4)})
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    for number, line in enumerate(lines):
        line |= {"response_tokens": 10 + number, "finish_reason": "length" if number < 3 else "stop"}
    predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit):
        main(["score", str(predictions), "--data", str(data), "--resamples", "20", "--json"])
    pooled = json.loads(capsys.readouterr().out)["runs"][0]["pooled"]
    assert pooled["tokens"] == sum(range(10, 30)) / 20
    assert pooled["cut_share"] == 3 / 20
    assert pooled["yes_share"]["value"] == 7 / 20
    assert pooled["yes_share"]["low"] < 7 / 20 < pooled["yes_share"]["high"]


@pytest.mark.parametrize("seed", range(3))
def test_lengths_and_shares_of_random_replies_are_those_of_numpy(write_run, capsys, seed: int) -> None:
    predictions, data = write_run({"screw_bag": Confusion(tp=16, fp=7, tn=19, fn=11)})
    rng = np.random.default_rng(seed)
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    tokens, cut = rng.integers(1, 500, len(lines)), rng.random(len(lines)) < 0.3
    for line, length, ended in zip(lines, tokens, cut, strict=True):
        line |= {"response_tokens": int(length), "finish_reason": "length" if ended else "stop"}
    predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit):
        main(["score", str(predictions), "--data", str(data), "--resamples", "20", "--json"])
    pooled = json.loads(capsys.readouterr().out)["runs"][0]["pooled"]
    assert pooled["tokens"] == pytest.approx(np.mean(tokens), abs=1e-12)
    assert pooled["cut_share"] == pytest.approx(np.mean(cut), abs=1e-12)


def test_a_comparison_shows_both_systems_and_the_constant_answers(write_run, tmp_path, capsys) -> None:
    predictions, data = write_run({"screw_bag": Confusion(tp=6, fp=1, tn=9, fn=4)})
    twin = tmp_path / "twin.jsonl"
    twin.write_bytes(predictions.read_bytes())
    words = ["compare", str(predictions), str(twin), "--data", str(data), "--resamples", "50"]
    with pytest.raises(SystemExit):
        main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)["constants"]
    assert [(item["first"], item["second"]) for item in found] == [
        (name, f"always {label}") for name in ("model", "twin") for label in ("yes", "no")
    ]
    # Against always yes, the model alone is right on the 9 normal pairs, the constant on the 4 that the model misses.
    assert (found[0]["only_first"], found[0]["only_second"]) == (9, 4)
    assert found[0]["accuracy"]["value"] == pytest.approx(15 / 20 - 10 / 20)
    with pytest.raises(SystemExit):
        main(words)
    text = capsys.readouterr().out
    assert "always yes" in text
    assert "MCC" in text


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
