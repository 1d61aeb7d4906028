"""The blind page: nothing on it tells model, answer or truth, and kappa is scikit-learn's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from tests.pair_files import image, make_pair, make_run_key, png_of_squares, write_pairs

from lad_datasets.annotate import blind as writer
from lad_reasoner.commands.lad import main
from lad_reasoner.inference.predictions import Prediction, PredictionStore
from lad_reasoner.pairs.reader import data_sha256
from lad_reasoner.support.errors import RunError
from lad_reasoner.support.files import locked
from lad_reasoner.task.violations import asserts_anomaly

TEXTS = ("A pin is missing.", "Both images agree.", "Nothing is missing.", "The cable is cut.", "All parts match.")


@pytest.fixture
def predicted(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(12):
        kind = "logical" if number % 2 else "good"
        reference, query = (
            image(png_of_squares(rng), f"c/{place}/{number}.png") for place in ("train/good", f"test/{kind}")
        )
        pairs.append(make_pair("pushpins", kind, [reference], query, defect="missing_pushpin"))
    data, out = write_pairs(tmp_path / "loco.parquet", pairs), tmp_path / "secretmodel.jsonl"
    key = make_run_key(data_sha256(data), model="secretmodel")
    with PredictionStore(out, key) as store:
        for number, pair in enumerate(pairs):
            text = f"<think> {TEXTS[number % 5]} </think><answer> yes </answer>" if number else "yes"
            store.append(Prediction(**dict(key), pair_id=pair.pair_id, response=text))
    return data, out


def run(*words: object) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([str(word) for word in words])


def test_the_page_shows_words_and_pictures_alone(predicted, tmp_path, capsys) -> None:
    data, out = predicted
    blind = tmp_path / "blind"
    run("review", blind, "--rationales", out, "--data", data)
    assert "Cohen's kappa" in capsys.readouterr().err
    rows = [json.loads(line) for line in (blind / "annotations.jsonl").read_text().splitlines()]
    assert sorted(row["answer"] for row in rows) == sorted(TEXTS[number % 5] for number in range(1, 12))
    page = (blind / "review" / "index.html").read_text()
    for told in ("secretmodel", "missing_pushpin", "pushpins", "logical", "mvtec_loco", "<answer>"):
        assert told not in page
        assert told not in (blind / "annotations.jsonl").read_text()
    assert all((blind / name).is_file() for row in rows for name in row["images"])
    with pytest.raises(SystemExit, match="2"):
        main(["review", str(blind), "--rationales", str(out), "--data", str(data)])


def test_kappa_with_the_extractor_is_that_of_scikit_learn(predicted, tmp_path, capsys) -> None:
    data, out = predicted
    blind = tmp_path / "blind"
    run("review", blind, "--rationales", out, "--data", data, "--sample", 9, "--seed", 4)
    capsys.readouterr()
    rows = [json.loads(line) for line in (blind / "annotations.jsonl").read_text().splitlines()]
    assert len(rows) == 9
    rng = np.random.default_rng(1)
    judged = ["accept" if rng.random() < 0.5 else "reject" for _ in rows]
    person = tmp_path / "person.jsonl"
    lines = (json.dumps({"id": row["id"], "decision": word}) for row, word in zip(rows, judged, strict=True))
    person.write_text("\n".join(lines))
    run("review", blind, "--decisions", person, "--decisions", blind / "extractor.jsonl", "--json")
    (agreement,) = json.loads(capsys.readouterr().out)["agreement"]
    machine = ["accept" if asserts_anomaly(row["answer"]) else "reject" for row in rows]
    assert agreement["kappa"] == pytest.approx(cohen_kappa_score(judged, machine))
    assert len(set(machine)) == 2


def test_blind_replies_are_never_trained_on(predicted, tmp_path, capsys) -> None:
    """Their images have lost the paths by which test images of MVTec LOCO AD are refused."""
    data, out = predicted
    run("review", tmp_path / "blind", "--rationales", out, "--data", data)
    capsys.readouterr()
    for words in (
        ["build", "sft", "--annotations", str(tmp_path / "blind"), "--out", str(tmp_path / "sft")],
        ["check", str(tmp_path / "blind/annotations.jsonl")],
    ):
        with pytest.raises(SystemExit, match="1"):
            main(words)
        assert "replies of models for a blind review" in "".join(capsys.readouterr())
    assert not (tmp_path / "sft").exists()


def test_a_failed_blind_review_can_be_run_again(predicted, tmp_path, monkeypatch) -> None:
    data, out = predicted
    with monkeypatch.context() as patch:
        patch.setattr(writer, "asserts_anomaly", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer.write_blind([out], tmp_path / "blind", data=data, sample=None, seed=0)
    assert list((tmp_path / "blind").iterdir()) == []
    with locked(tmp_path / "blind/annotations.jsonl"), pytest.raises(RunError, match="another process"):
        writer.write_blind([out], tmp_path / "blind", data=data, sample=None, seed=0)
    assert writer.write_blind([out], tmp_path / "blind", data=data, sample=None, seed=0) == 11
