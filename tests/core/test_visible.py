"""Names and file contents cannot move the cursor or turn the reading direction of what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pair_files import image, make_pair, make_run_key, write_pairs

from lad_reasoner.commands.lad import main
from lad_reasoner.inference.predictions import Prediction, PredictionStore
from lad_reasoner.pairs.reader import data_sha256
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.findings import Findings, warning
from lad_reasoner.support.visible import visible

UNSEEN = ["\x1b[31m", "\r", "\x07", "\x9b2J", "\u202e", "\u2066", "\u200f", "\u2028", "\ufeff", "\ud800"]


@pytest.mark.parametrize("mark", UNSEEN)
def test_marks_are_spelled_out_everywhere(mark) -> None:
    name = f"a{mark}b"
    findings = Findings(quiet=True)
    findings.add("note", name)
    for text in (str(DataError(name)), str(UsageError("wrong", where=name, remedy=name)), *findings.lines):
        assert mark not in text
        text.encode()
    assert mark not in str(warning(name, name, remedy=name))


def test_a_finding_is_one_line() -> None:
    findings = Findings(quiet=True)
    findings.add("note", "a\nerror: b")
    assert findings.lines == ["note: a\\nerror: b"]
    assert "\n" not in str(warning("a\nb", "c\nd"))


@given(st.text())
def test_visible_text_prints_and_stays_as_it_is(text) -> None:
    shown = visible(text, one_line=True)
    shown.encode()
    assert visible(shown, one_line=True) == shown
    assert len(shown.splitlines()) <= 1


def test_usual_text_is_left_alone() -> None:
    for text in ("häkel ☃ 正常", "a\tb\nc", "C:\\data\\x.png", "é🎉"):
        assert visible(text) == text


def test_ids_from_a_file_move_no_cursor_on_the_terminal(capsys) -> None:
    from lad_reasoner.commands.systems import note_ids

    note_ids("own\x1b[2J", ["a\nb\u202e"], "pairs are unknown")
    assert capsys.readouterr().err == "own\\x1b[2J: 1 pairs are unknown: a\\nb\\u202e\n"


#: A terminal escape, a C1 control, a change of direction and a mark without width, allowed in file names.
HOSTILE = "a\x1b[31mb\x9b2Jc\u202ed\u200be"
SHOWN = "a\\x1b[31mb\\x9b2Jc\\u202ed\\u200be"


def write_hostile_run(folder: Path) -> tuple[Path, Path]:
    """Write pairs of a hostile category and defect, and predictions of a hostile name."""
    picture = image(b"x", f"{HOSTILE}/test/good/0.png")
    pairs = [
        make_pair(HOSTILE, kind, [picture], image(kind.encode(), f"{HOSTILE}/test/{kind}/1.png"), defect=HOSTILE)
        for kind in ("good", "logical")
    ]
    data = write_pairs(folder / f"{HOSTILE}.parquet", pairs)
    key = make_run_key(data_sha256(data), backend="openai")
    out = folder / f"{HOSTILE}.jsonl"
    with PredictionStore(out, key) as store:
        for pair in pairs:
            store.append(Prediction(**dict(key), pair_id=pair.pair_id, response="<answer> yes </answer>"))
    return data, out


def run_lad(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main(words)
    printed = capsys.readouterr()
    return printed.out + printed.err


@pytest.mark.parametrize("command", ["score", "compare", "report", "plot", "review", "predict", "check", "json"])
def test_no_command_prints_hostile_names(command, tmp_path, capsys) -> None:
    data, run = write_hostile_run(tmp_path)
    other = tmp_path / "other.jsonl"
    other.write_bytes(run.read_bytes())
    common = ["--data", str(data)]
    match command:
        case "score":
            words = ["score", str(run), *common, "--by", "defect", "--details", "--rationales", "--resamples", "9"]
        case "json":
            words = ["score", str(run), *common, "--json", "--resamples", "9"]
        case "compare":
            words = ["compare", str(run), str(other), *common, "--rationales", "--resamples", "9"]
        case "report":
            words = ["report", str(run), *common, "--out", str(tmp_path / f"report{HOSTILE}"), "--resamples", "9"]
        case "plot":
            folder = tmp_path / HOSTILE
            folder.mkdir()
            (folder / "experiment_log.jsonl").write_text('{"step": 1, "reward": {"overall": 1.0}}\n')
            words = ["plot", f"{HOSTILE}={folder}", "--out", str(tmp_path / f"plots{HOSTILE}")]
        case "review":
            row = {"id": "a#1", "images": ["a.png"], "question": "<image>?", "answer": "It is.", "dataset": "own"}
            (tmp_path / "annotations.jsonl").write_text(json.dumps(row | {"category": HOSTILE}))
            (tmp_path / f"{HOSTILE}.jsonl").write_text(json.dumps({"id": "a#1", "decision": "accept"}))
            words = ["review", str(tmp_path), "--decisions", str(tmp_path / f"{HOSTILE}.jsonl")]
        case "predict":
            words = ["predict", *common, "--model", HOSTILE, "--out", str(tmp_path / "p" / HOSTILE), "--limit", "1"]
        case "check":
            words = ["check", str(data)]
    printed = run_lad(words, capsys)
    assert visible(printed) == printed
    assert "internal error" not in printed
    assert (json.dumps(HOSTILE) if command == "json" else SHOWN) in printed


def test_only_the_console_prints(repository) -> None:
    """A verb that prints by itself prints what is in names and files as it is."""
    source = [*repository.glob("plugin/*/commands/*.py"), *repository.glob("dataset_builders/*/commands/*.py")]
    calls = [
        f"{path.name}: {line.strip()}"
        for path in source
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"(?<![_.])\bprint\(|typer\.echo\(|\bConsole\(", line)
    ]
    allowed = ("json.dumps(", "yaml.safe_dump(", "visible(", "__version__", "_as_script(", "print(resume")
    assert [call for call in calls if not any(word in call for word in allowed)] == []
