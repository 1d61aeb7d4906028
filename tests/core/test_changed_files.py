"""A file that is replaced while a command reads it: one sentence, and nothing of two files in one result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.pair_files import image, make_pair, png_of_squares, write_pairs

from lad_datasets.builders import sft
from lad_datasets.builders.filter import filter_pairs
from lad_datasets.checks import pairs as pair_checks
from lad_datasets.checks.check import CheckOptions, check_file
from lad_reasoner import api
from lad_reasoner.evaluation import score as scores
from lad_reasoner.inference.predict import predict
from lad_reasoner.inference.predictions import Sampling, read_predictions
from lad_reasoner.inference.protocol import Answer, Question
from lad_reasoner.report import page
from lad_reasoner.support.errors import DataError, RunError
from lad_reasoner.support.files import unchanged

CHANGED = "the file was changed or replaced while it was in use"


class Model:
    """Answers every pair, and calls something before the second answer."""

    model, model_digest, name, dtype = "m", None, "openai", None
    sampling = Sampling(temperature=0, max_new_tokens=8, seed=0, structured=False, min_pixels=None, max_pixels=None)

    def __init__(self, interrupt=lambda: None) -> None:
        self.interrupt = interrupt

    def answer(self, questions: Iterable[Question]) -> Iterator[Answer]:
        for number, question in enumerate(questions):
            if number == 1:
                self.interrupt()
            text = f"<answer> {'yes' if number % 2 else 'no'} </answer>"
            yield Answer(question.pair_id, 0, text, None, None, None, None, "stop", 0.0)


def write_data(path: Path, *, first: int = 0, count: int = 6) -> Path:
    def picture(number: int) -> bytes:
        return png_of_squares(np.random.default_rng(number), 28, 28)

    reference = image(picture(0), "nut/good/0.png")
    pairs = [
        make_pair("nut", kind, [reference], image(picture(n), f"nut/{kind}/{n}.png"), defect=kind)
        for n, kind in enumerate(["good", "logical"] * (count // 2), start=first)
    ]
    return write_pairs(path, pairs)


def replace(path: Path, **options: int) -> None:
    other = write_data(path.with_name("other"), **options)
    other.replace(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return write_data(tmp_path / "data" / "pairs.parquet")


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run.jsonl"
    predict(data, Model(), out)
    return out


def test_predict_keeps_the_answers_before_the_change_and_stops(data, tmp_path) -> None:
    out = tmp_path / "run.jsonl"
    with pytest.raises(DataError, match=CHANGED):
        predict(data, Model(lambda: replace(data, first=100)), out)
    assert [line.pair_id for line in read_predictions(out)] == ["mvtec_loco/nut/good/0.png"]
    with pytest.raises(Exception, match="another run"):  # the new data is another run's
        predict(data, Model(), out)


def test_predict_stops_when_a_shard_is_added(data, tmp_path) -> None:
    with pytest.raises(DataError, match=CHANGED):
        predict(data.parent, Model(lambda: replace(data.with_name("b.parquet"), first=50)), tmp_path / "run.jsonl")


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_predict_does_not_write_into_a_file_without_a_name(how, data, tmp_path) -> None:
    out = tmp_path / "run.jsonl"

    def interrupt() -> None:
        out.rename(tmp_path / "moved.jsonl")
        if how == "replaced":
            out.write_text("mine")

    with pytest.raises(RunError, match="removed or replaced while it was written to"):
        predict(data, Model(interrupt), out)
    assert len(read_predictions(tmp_path / "moved.jsonl")) == 1
    assert [path.read_text() for path in tmp_path.glob("run.jsonl")] == (["mine"] if how == "replaced" else [])


def meanwhile(monkeypatch, module, name: str, action) -> None:
    """Call something right before a function of a module."""
    original = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *words, **options: (action(), original(*words, **options))[1])


def test_score_and_filter_read_one_file(data, run, tmp_path, monkeypatch) -> None:
    meanwhile(monkeypatch, scores, "read_truths", lambda: replace(data, first=100))
    with pytest.raises(DataError, match=CHANGED):
        api.score(run, data)
    write_data(data)
    with pytest.raises(DataError, match=CHANGED):
        filter_pairs(run, tmp_path / "kept.parquet", data=data)
    assert not (tmp_path / "kept.parquet").exists()


def test_report_reads_one_file(data, run, tmp_path, monkeypatch) -> None:
    meanwhile(monkeypatch, page, "draw_pictures", lambda: replace(data, first=100))
    with pytest.raises(DataError, match=CHANGED):
        api.write_report([run], tmp_path / "report", data=data, resamples=9)
    assert "This report was not finished" in (tmp_path / "report" / "index.html").read_text()
    monkeypatch.undo()
    write_data(data)
    report = api.write_report([run], tmp_path / "report", data=data, resamples=9)  # the folder is known
    assert "This report was not finished" not in report.page.read_text()


def test_check_reads_one_file(data, monkeypatch) -> None:
    meanwhile(monkeypatch, pair_checks, "_check_whole", lambda: replace(data, first=100))
    with pytest.raises(DataError, match=CHANGED):
        check_file(data, CheckOptions())


def test_sft_takes_the_image_that_it_checked(tmp_path, monkeypatch) -> None:
    from tests.datasets.conftest import tiny_png

    (tmp_path / "a.png").write_bytes(tiny_png())
    row = {"id": "a#1", "images": ["a.png"], "question": "<image>Sound?", "answer": "Yes.", "dataset": "own"}
    (tmp_path / "annotations.jsonl").write_text(json.dumps(row | {"category": "gear"}))
    meanwhile(monkeypatch, sft, "_write_folder", lambda: (tmp_path / "a.png").write_bytes(b"a test image"))
    with pytest.raises(DataError, match="the image was replaced while the build ran"):
        sft.build_sft(tmp_path / "annotations.jsonl", tmp_path / "sft")
    assert not (tmp_path / "sft").exists()


def test_a_reader_that_fails_on_half_a_file_is_not_blamed(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_text("whole")
    with pytest.raises(DataError, match=CHANGED), unchanged(lambda: [path]):
        path.write_text("half of it")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), unchanged(lambda: [path]):
        raise ZeroDivisionError


def test_times_in_the_future_and_a_clock_set_back_change_nothing(data, run, tmp_path, monkeypatch) -> None:
    before = run.read_bytes()
    first = api.score(run, data, resamples=9)
    for path in [data, run, *tmp_path.glob("*.json")]:
        os.utime(path, (4e9, 4e9))
    monkeypatch.setattr("time.time", lambda: 0.0)
    summary = predict(data, Model(), run)
    assert (summary.written, summary.resumed) == (0, 6)
    assert run.read_bytes() == before
    assert api.score(run, data, resamples=9) == first
    api.write_report([run], tmp_path / "report", data=data, resamples=9)
    files = [path for path in (tmp_path / "report").rglob("*") if path.is_file()]
    report = {path: path.read_bytes() for path in files}
    for path in files:
        os.utime(path, (4e9, 4e9))
    api.write_report([run], tmp_path / "report", data=data, resamples=9)
    assert {path: path.read_bytes() for path in report} == report
