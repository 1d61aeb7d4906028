"""Asking again with a reply's own words and grey images, and what `lad score` makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lad_reasoner.commands.lad import main
from lad_reasoner.inference.predict import predict
from lad_reasoner.inference.predictions import Sampling, read_predictions, read_run_card
from lad_reasoner.inference.protocol import Answer, Question
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.response import parse


class Scripted:
    """A backend that answers with chosen texts and keeps its questions."""

    name, model, model_digest, dtype = "openai", "scripted", None, None
    sampling = Sampling(temperature=1, max_new_tokens=9, seed=0, structured=False, min_pixels=None, max_pixels=None)

    def __init__(self, texts: dict[tuple[str, int], str]) -> None:
        self.texts, self.asked = texts, list[Question]()

    def answer(self, questions: Iterable[Question]) -> Iterator[Answer]:
        for question in questions:
            self.asked.append(question)
            for sample in question.samples:
                yield Answer(question.pair_id, sample, self.texts[question.pair_id, sample], *[None] * 4, "stop", 0.0)


class Random(Scripted):
    """Answers at random, some replies without reasoning."""

    def __init__(self, seed: int) -> None:
        super().__init__({})
        self.rng = np.random.default_rng(seed)

    def answer(self, questions: Iterable[Question]) -> Iterator[Answer]:
        for question in questions:
            self.asked.append(question)
            for sample in question.samples:
                word = self.rng.choice(["yes", "no", "maybe"], p=[0.45, 0.45, 0.1])
                text = f"<think> <image> seen {question.pair_id} {sample} </think><answer> {word} </answer>"
                if self.rng.random() < 0.2:
                    text = text.replace("<think>", "")
                yield Answer(question.pair_id, sample, text, *[None] * 4, "stop", 0.0)


def test_every_reply_is_asked_again_with_its_words_alone(make_pairs, tmp_path, capsys) -> None:
    data, base, out = make_pairs(30), tmp_path / "base.jsonl", tmp_path / "again.jsonl"
    predict(data, Random(1), base, samples=2)
    backend = Random(2)
    predict(data, backend, out, samples=2, reasoning=base)
    first = {(line.pair_id, line.sample): parse(line.response) for line in read_predictions(base)}
    second = {(line.pair_id, line.sample): parse(line.response) for line in read_predictions(out)}
    assert set(second) == {reply for reply, said in first.items() if said.reasoning}
    assert len(second) < len(first)
    assert len({image.data for question in backend.asked for image in question.images}) == 1
    for question in backend.asked:
        (sample,) = question.samples
        assert question.prompt.endswith(f" seen {question.pair_id} {sample}")
        assert question.prompt.count("<image>") == len(question.images) == 2
    assert read_run_card(out)["reasoning_of"] == str(base.resolve())
    words = [
        "score",
        str(base),
        "--rationales",
        "--again",
        str(out),
        "--protocol",
        "all",
        "--resamples",
        "50",
        "--json",
    ]
    with pytest.raises(SystemExit, match="0"):
        main(words)
    figure = json.loads(capsys.readouterr().out)["rationales"][0]["figures"]["words_alone"]["value"]
    answered = [reply for reply in second if first[reply].answer is not None]
    expected = sum(second[reply].answer == first[reply].answer for reply in answered) / len(answered)
    assert figure == pytest.approx(expected)
    assert 0 < figure < 1


def test_other_data_and_ordinary_predictions_are_refused(make_pairs, tmp_path, capsys) -> None:
    data, other, base = make_pairs(6), make_pairs(8), tmp_path / "base.jsonl"
    predict(data, Random(1), base)
    with pytest.raises(DataError, match="other data"):
        predict(other, Random(2), Path(tmp_path / "again.jsonl"), reasoning=base)
    with pytest.raises(SystemExit, match="1"):
        main(["score", str(base), "--rationales", "--again", str(base)])
    assert "--without-images" in capsys.readouterr().err


def test_words_of_two_runs_never_mix(make_pairs, tmp_path, capsys) -> None:
    """Neither in one file, where an interrupted run is continued, nor in the scores."""
    data, out = make_pairs(6), tmp_path / "again.jsonl"
    runs = [tmp_path / "base.jsonl", tmp_path / "other.jsonl"]
    for seed, path in enumerate(runs):
        backend = Random(seed)
        backend.model = path.stem
        predict(data, backend, path)
    predict(data, Random(2), out, reasoning=runs[0], limit=3)
    card = read_run_card(out)
    with pytest.raises(UsageError, match="prompt"):
        predict(data, Random(2), out, reasoning=runs[1])
    assert read_run_card(out) == card
    for words, problem in (
        (["--rationales", "--again", str(out)], f"{runs[0]}, another run than {runs[1]}"),
        (["--again", str(out)], "--again needs --rationales"),
        (["--judge", "http://127.0.0.1:9/v1"], "--judge needs --rationales"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["score", str(runs[1]), "--protocol", "all", *words])
        assert stop.value.code in {1, 2}
        assert problem in capsys.readouterr().err
