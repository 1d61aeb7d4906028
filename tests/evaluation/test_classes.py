"""Scores of answers by class, recomputed with scikit-learn on random data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score
from tests.pair_files import image, make_run_key, png_of_squares, write_rows

from lad_reasoner.commands.lad import main
from lad_reasoner.evaluation.classes import UNREAD, score_classes
from lad_reasoner.evaluation.outcomes import join, read_replies
from lad_reasoner.inference.predictions import Prediction, PredictionStore
from lad_reasoner.pairs.reader import Truth, data_sha256, read_truths
from lad_reasoner.pairs.schema import Pair

DEFECTS = {
    "missing_nut": ("logical", "missing"),
    "wrong_color": ("logical", "color"),
    "screw_too_long": ("logical", "length"),
    "dent": ("structural", "structural"),
    "good": ("good", "normal"),
}
SAID = {
    "logical: missing nut": "missing",
    "logical: wrong color": "color",
    "logical: swapped": "swapped",
    "structural": "structural",
    "normal": "normal",
    "maybe": UNREAD,
}


def pair(number: int, defect: str) -> Pair:
    picture = image(png_of_squares(np.random.default_rng(number), 28, 28), f"c/test/{defect}/{number:03d}.png")
    reference = image(png_of_squares(np.random.default_rng(10_000 + number), 28, 28), f"c/train/good/{number:03d}.png")
    kind, label = DEFECTS[defect][0], "no" if defect == "good" else "yes"
    return Pair(f"d/{number}", "d", "c", label, kind, defect, (reference,), picture, answers="classes")


@pytest.fixture(scope="module")
def truth_and_replies(tmp_path_factory) -> tuple[Path, Path, list[str], list[str]]:
    folder, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(5)
    defects, said = rng.choice(list(DEFECTS), 150).tolist(), rng.choice(list(SAID), 150).tolist()
    data, out = folder / "data.parquet", folder / "model.jsonl"
    pairs = [pair(number, defect) for number, defect in enumerate(defects)]
    write_rows(data, [each.to_row() for each in pairs])
    key = make_run_key(data_sha256(data), model="model")
    with PredictionStore(out, key) as store:
        for each, words in zip(pairs, said, strict=True):
            text = f"<think> compared </think><answer> {words} </answer>"
            store.append(Prediction(**dict(key), pair_id=each.pair_id, response=text))
    return data, out, [DEFECTS[defect][1] for defect in defects], [SAID[words] for words in said]


def test_figures_are_those_of_scikit_learn(truth_and_replies) -> None:
    data, out, truth, said = truth_and_replies
    from lad_reasoner.inference.predictions import read_predictions

    truths = read_truths(data)
    system = join("m", read_replies(read_predictions(out)), scored=truths, known=truths)
    score = score_classes(system, resamples=300)
    assert score is not None
    classes = sorted(set(truth))
    assert sorted(score.classes) == classes
    expected = f1_score(truth, said, labels=list(score.classes), average=None)
    assert score.f1 == pytest.approx(expected, abs=1e-12)
    assert score.macro_f1.value == pytest.approx(expected.mean(), abs=1e-12)
    assert score.macro_f1.low < score.macro_f1.value < score.macro_f1.high
    assert score.accuracy.value == pytest.approx(np.mean([t == s for t, s in zip(truth, said, strict=True)]))
    table = confusion_matrix(truth, said, labels=list(score.stated))
    assert np.array_equal(np.array(score.confusion), table[: len(score.classes)])
    logical = {"missing", "color", "length", "swapped"}
    credit = [1.0 if t == s else 0.5 * (t in logical and s in logical) for t, s in zip(truth, said, strict=True)]
    assert score.credit.value == pytest.approx(np.mean(credit), abs=1e-12)


def test_the_papers_metrics_map_classes_to_yes_and_no(truth_and_replies, capsys) -> None:
    data, out, truth, said = truth_and_replies
    arguments = ["score", str(out), "--data", str(data), "--protocol", "all", "--resamples", "50"]
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    cells = [(t != "normal", None if s == UNREAD else s != "normal") for t, s in zip(truth, said, strict=True)]
    confusion = found["runs"][0]["pooled"]["confusion"]
    assert confusion == {
        "tp": cells.count((True, True)),
        "fp": cells.count((False, True)) + cells.count((False, None)),
        "tn": cells.count((False, False)),
        "fn": cells.count((True, False)) + cells.count((True, None)),
    }
    assert found["classes"][0]["replies"] == 150
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    printed = capsys.readouterr().out
    assert "macro F1" in printed and "truth by row" in printed


def test_yes_and_no_have_no_classes() -> None:
    truth = Truth("p", "d", "c", "yes", "logical", "missing_nut", "q.png")
    system = join("m", {}, scored=[truth], known=[truth])
    assert score_classes(system) is None
