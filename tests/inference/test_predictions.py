"""The store of predictions: what a killed, broken, mixed or foreign file leads to."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_reasoner.inference.predictions import (
    Prediction,
    PredictionStore,
    RunKey,
    Sampling,
    read_predictions,
    read_run_card,
    run_card_path,
)
from lad_reasoner.support.errors import DataError, RunError, UsageError

SAMPLING = Sampling(temperature=0, max_new_tokens=8, seed=0, structured=False, min_pixels=None, max_pixels=None)
KEY = RunKey(
    model="a/model",
    model_digest=None,
    backend="transformers",
    dtype="float32",
    prompt_sha256="p",
    data_sha256="d",
    sampling=SAMPLING,
)


def prediction(pair_id: str, response: str = "no", **changes: object) -> Prediction:
    return Prediction(**(dict(KEY) | {"pair_id": pair_id, "response": response} | changes))


def write(path: Path, *pair_ids: str) -> bytes:
    with PredictionStore(path, KEY) as store:
        for pair_id in pair_ids:
            store.append(prediction(pair_id))
    return path.read_bytes()


def test_what_is_written_is_read_and_not_asked_again(tmp_path) -> None:
    path = tmp_path / "sub" / "out.jsonl"
    write(path, "a", "b")
    with PredictionStore(path, KEY) as store:
        assert store.done == {("a", 0), ("b", 0)}
        assert store.repaired == ""
        store.append(prediction("b", sample=1))
    assert [(item.pair_id, item.sample) for item in read_predictions(path)] == [("a", 0), ("b", 0), ("b", 1)]


@pytest.mark.parametrize("times", [1, 3])
def test_a_second_line_for_a_pair_is_reported_with_both_numbers(tmp_path, caplog, times: int) -> None:
    path = tmp_path / "out.jsonl"
    whole = write(path, "a", "b", "c")
    path.write_bytes(whole + b"\n" + whole.replace(b'"response":"', b'"response":"later ') * times)
    assert [item.response for item in read_predictions(path)] == [prediction(name).response for name in "abc"]
    named = "lines 1 and 5 both answer a, sample 0; lines 2 and 6 both answer b, sample 0"
    (message,) = caplog.messages
    assert message.startswith(f"repeated: {path}: {named}")
    assert message.endswith(("c, sample 0" if times == 1 else "; and 4 more") + "; the first line counts")
    with PredictionStore(path, KEY) as store:
        assert len(store.done) == 3
    assert len(caplog.messages) == 2


@given(cut=st.integers(1, 300))
def test_a_file_cut_anywhere_in_its_last_line_is_repaired_and_loses_nothing(tmp_path_factory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "out.jsonl"
    whole = write(path, "a", "b")
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole[: -min(cut, len(lines[1]) - 1)])
    with PredictionStore(path, KEY) as store:
        assert "last line was broken" in store.repaired
        assert store.done == {("a", 0)}
        store.append(prediction("b"))
    assert path.read_bytes() == whole
    assert lines[1].startswith(path.with_name("out.jsonl.broken").read_bytes().rstrip(b"\n"))


@pytest.mark.parametrize("tail", [b"\x00" * 50, b"{}\n", b'{"pair_id": "b"}\n', b"\xff\xfe\n"])
def test_a_corrupted_last_line_is_repaired(tmp_path, tail: bytes) -> None:
    path = tmp_path / "out.jsonl"
    whole = write(path, "a")
    path.write_bytes(whole + tail)
    with PredictionStore(path, KEY) as store:
        assert store.done == {("a", 0)}
    assert path.read_bytes() == whole


def test_blank_lines_mean_nothing(tmp_path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"\n" + write(path, "a") + b"\n\n")
    with PredictionStore(path, KEY) as store:
        assert store.done == {("a", 0)}
        assert store.repaired == ""


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path) -> None:
    path = tmp_path / "out.jsonl"
    whole = write(path, "a", "b")
    first, second = whole.splitlines(keepends=True)
    path.write_bytes(first + b"garbage\n" + second)
    with pytest.raises(DataError, match=r"out.jsonl, line 2: b'garbage"):
        PredictionStore(path, KEY)
    assert path.read_bytes() == first + b"garbage\n" + second


def test_a_file_that_is_not_ours_is_left_alone(tmp_path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\ntoday I")
    with pytest.raises(DataError, match="line 1"):
        PredictionStore(path, KEY)
    assert path.read_text() == "dear diary\ntoday I"


@pytest.mark.parametrize(
    "content",
    [
        b"dear diary",
        b"dear diary\n",
        b"{}",
        b'{"model": "x"}',
        b'{"model":"x"}',
        b'["a"',
        b"\x00" * 9,
        b"\n\nmy notes",
    ],
)
def test_a_foreign_file_of_one_line_is_left_alone(tmp_path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"notes.txt, line 1: not a prediction: b.*Choose another --out"):
        PredictionStore(path, KEY)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("kept", [1, 9, 10, 60, -1])
def test_a_lone_line_cut_by_a_kill_is_repaired(tmp_path, kept: int) -> None:
    path = tmp_path / "out.jsonl"
    whole = write(path, "a")
    path.write_bytes(whole[:kept])
    with PredictionStore(path, KEY) as store:
        assert "last line was broken" in store.repaired
        assert store.done == set()
        store.append(prediction("a"))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["/dev/full", "/dev/null", "pipe", "folder"])
def test_what_is_no_file_is_refused_unopened(tmp_path, name: str) -> None:
    path = tmp_path / name
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a reader
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"[Cc]hoose another --out"):
        PredictionStore(path, KEY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("score", "NaN"),
        ("score", "7.5"),
        ("score", "-0.1"),
        ("score", "Infinity"),
        ("sample", "-3"),
        ("seconds", "NaN"),
    ],
)
def test_numbers_that_cannot_be_are_refused_when_read(tmp_path, field: str, value: str) -> None:
    path = tmp_path / "out.jsonl"
    lines = [json.loads(line) for line in write(path, "a", "b").splitlines()]
    lines[1][field] = float(value) if field != "sample" else int(value)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=rf"out.jsonl, line 2: b.* is not a prediction \({field}: "):
        read_predictions(path)


def test_every_name_has_its_own_run_card(tmp_path) -> None:
    names = ["model-2.5", "model-2.7", "base.jsonl", "base.txt", ".jsonl"]
    assert len({run_card_path(tmp_path / name) for name in names}) == len(names)
    assert run_card_path(tmp_path / "base.jsonl") == tmp_path / "base.run.json"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "another/model"},
        {"prompt_sha256": "q"},
        {"data_sha256": "e"},
        {"dtype": "bfloat16"},
        {"sampling": SAMPLING.model_copy(update={"temperature": 1.0})},
        {"sampling": SAMPLING.model_copy(update={"max_pixels": 401408})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_two_runs_do_not_mix_in_one_file(tmp_path, change: dict[str, object]) -> None:
    path = tmp_path / "out.jsonl"
    write(path, "a")
    with pytest.raises(UsageError, match=f"different {next(iter(change))}.*choose another --out") as caught:
        PredictionStore(path, KEY.model_copy(update=change))
    assert "\n" not in str(caught.value)
    with path.open("ab") as lines:
        lines.write(prediction("b", **change).model_dump_json().encode() + b"\n")
    with pytest.raises(DataError, match="line 2"):
        read_predictions(path)


def test_the_same_weights_under_another_name_are_the_same_model(tmp_path) -> None:
    path = tmp_path / "out.jsonl"
    here = KEY.model_copy(update={"model_digest": "w"})
    PredictionStore(path, here).append(Prediction(**dict(here), pair_id="a", response=""))
    with PredictionStore(path, here.model_copy(update={"model": "./elsewhere"})) as store:
        assert store.done == {("a", 0)}


def test_one_process_writes_at_a_time(tmp_path) -> None:
    path = tmp_path / "out.jsonl"
    with PredictionStore(path, KEY), pytest.raises(RunError, match="another process"):
        PredictionStore(path, KEY)


HOSTILE = [
    '<script>alert("x")</script>',
    "line\u2028separator\u2029s",
    "nul \x00 and bell \x07",
    "a\nb\r\nc",
    '"quotes" and \\slashes\\',
    "x" * 1_000_000,
    "",
]


def test_hostile_responses_and_ids_stay_one_line_each_and_come_back_whole(tmp_path) -> None:
    path = tmp_path / "out.jsonl"
    with PredictionStore(path, KEY) as store:
        for number, text in enumerate(HOSTILE):
            store.append(prediction(f'{number} "\n{text[:20]}', text))
    assert len(path.read_bytes().split(b"\n")) == len(HOSTILE) + 1
    assert [item.response for item in read_predictions(path)] == HOSTILE


def test_empty_and_absent_files_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_predictions(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="no predictions"):
        read_predictions(tmp_path / "empty.jsonl")


def test_a_broken_run_card_is_named_and_an_absent_one_is_empty(tmp_path) -> None:
    path = tmp_path / "out.jsonl"
    assert read_run_card(path) == {}
    run_card_path(path).write_text("{")
    with pytest.raises(DataError, match=r"out.run.json.*unreadable JSON"):
        read_run_card(path)
    run_card_path(path).write_text(json.dumps([1]))
    with pytest.raises(DataError, match="it holds a list"):
        read_run_card(path)


@pytest.mark.parametrize("more", [b"", b',"language":"de"'], ids=["same fields", "a new field"])
def test_predictions_of_a_newer_release_are_refused_and_left_alone(tmp_path, more: bytes) -> None:
    path = tmp_path / "out.jsonl"
    line = write(path, "a").replace(b'"schema_version":1', b'"schema_version":2' + more)
    path.write_bytes(line)
    for refused in (lambda: read_predictions(path), lambda: PredictionStore(path, KEY)):
        with pytest.raises(DataError, match=r"schema version 2; this release reads 1.*Upgrade lad-reasoner"):
            refused()
    assert path.read_bytes() == line


def test_predictions_without_a_version_are_read(tmp_path) -> None:
    path = tmp_path / "out.jsonl"
    line = write(path, "a")
    path.write_bytes(line.replace(b',"schema_version":1', b""))
    with PredictionStore(path, KEY) as store:
        assert store.done == {("a", 0)}
