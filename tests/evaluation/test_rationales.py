"""The figures of the reasoning: against synthetic truth, against plain re-computation, and monotone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from lad_reasoner.commands.lad import main
from lad_reasoner.evaluation.outcomes import JudgedPair, ScoredReply, System
from lad_reasoner.evaluation.rationales import compare_rationales, is_wrong_reason, score_rationales
from lad_reasoner.pairs.reader import Truth
from lad_reasoner.support.confusion import Confusion

#: Defect, and a sentence that is true of it.
TRUE = {
    "missing_cable": "In the query a cable is missing.",
    "1_additional_nut": "There is an additional nut.",
    "compartments_swapped": "The compartments are swapped.",
    "cable_cut": "The cable has been cut.",
    "screw_too_long": "One screw is too long.",
    "contamination": "Some dirt sticks to the label.",
}
NORMAL = "Both images agree and nothing is missing."


def judged(number: int, defect: str, reasoning: str, answer: str | None = None, category: str = "c") -> JudgedPair:
    label = "no" if defect == "good" else "yes"
    kind = "good" if defect == "good" else "logical"
    truth = Truth(f"p{number}", "d", category, label, kind, defect, f"q{number}.png")
    return JudgedPair(truth, (ScoredReply(answer or label, reasoning=reasoning),))


def queries(count: int = 120, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [str(rng.choice(list(TRUE))) if number % 2 else "good" for number in range(count)]


def system(reasonings: list[str], defects: list[str]) -> System:
    rows = (judged(n, defect, text) for n, (text, defect) in enumerate(zip(reasonings, defects, strict=True)))
    return System("m", tuple(rows))


def test_the_oracle_is_right_about_everything() -> None:
    defects = queries()
    score = score_rationales(system([TRUE.get(defect, NORMAL) for defect in defects], defects), resamples=200)
    assert score.figures["violation_recall"].value == score.figures["violation_precision"].value == 1.0
    assert score.figures["object_hit"].value == 1.0
    assert score.figures["hallucinated"].value == score.figures["wrong_reason"].value == 0.0
    assert (score.figures["consistency"].value, score.kappa) == (1.0, 1.0)
    assert all(item.recall.value == 1.0 for item in score.defects)
    assert {item.name for item in score.defects} == {f"c/{defect}" for defect in TRUE}
    assert score.figures["violation_recall"].low < 1.0  # 60 queries without an error are no proof


def test_shuffled_rationales_score_at_the_shuffled_baseline() -> None:
    defects = queries(600)
    rng = np.random.default_rng(1)
    places = [number for number, defect in enumerate(defects) if defect != "good"]
    texts = [TRUE.get(defect, NORMAL) for defect in defects]
    baseline = score_rationales(system(texts, defects), resamples=0).baselines[1]
    found = []
    for _ in range(20):
        mixed = list(texts)
        for place, other in zip(places, rng.permutation(places), strict=True):
            mixed[place] = texts[other]
        found.append(score_rationales(system(mixed, defects), resamples=0).figures["violation_recall"].value)
    assert np.mean(found) == pytest.approx(baseline.recall, abs=0.01)
    plain = [defects[place] for place in places]
    expected = np.mean([(sum(defect == other for other in plain) - 1) / (len(plain) - 1) for defect in plain])
    assert baseline.recall == pytest.approx(expected, abs=1e-12)


def test_a_constant_rationale_scores_at_the_constants_baseline() -> None:
    defects = queries()
    score = score_rationales(system([TRUE["missing_cable"]] * len(defects), defects), resamples=0)
    share = sum(defect == "missing_cable" for defect in defects) / sum(defect != "good" for defect in defects)
    assert score.figures["violation_recall"].value == pytest.approx(share, abs=1e-12)
    assert score.figures["violation_precision"].value == pytest.approx(share, abs=1e-12)
    most = max(sum(defect == name for defect in defects) for name in TRUE) / 60
    assert score.baselines[0].recall == pytest.approx(most, abs=1e-12)
    assert score.figures["hallucinated"].value == 1.0
    assert score.kappa is None


def test_a_true_statement_never_lowers_recall_and_a_false_one_never_raises_precision() -> None:
    rng = np.random.default_rng(2)
    defects = queries()
    texts = [str(rng.choice([*TRUE.values(), NORMAL])) for _ in defects]
    before = score_rationales(system(texts, defects), resamples=0).figures
    true = [f"{text} {TRUE.get(defect, '')}" for text, defect in zip(texts, defects, strict=True)]
    false = [
        f"{text} The print is smudged." if defect in TRUE else text
        for text, defect in zip(texts, defects, strict=True)
    ]
    assert score_rationales(system(true, defects), resamples=0).figures["violation_recall"].value == 1.0
    after = score_rationales(system(false, defects), resamples=0).figures
    assert after["violation_recall"].value == before["violation_recall"].value
    assert after["violation_precision"].value < before["violation_precision"].value


def test_every_figure_is_that_of_plain_counting() -> None:
    rng = np.random.default_rng(3)
    names = dict(zip(TRUE, ("missing", "extra", "swapped", "cut", "length", "contamination"), strict=True))
    defects = queries(200, seed=4)
    chosen = [list(rng.choice(list(TRUE), size=rng.integers(0, 3), replace=False)) for _ in defects]
    answers = [str(rng.choice(["yes", "no"])) for _ in defects]
    rows = [
        judged(number, defect, " ".join(TRUE[name] for name in said) or NORMAL, answer)
        for number, (defect, said, answer) in enumerate(zip(defects, chosen, answers, strict=True))
    ]
    score = score_rationales(System("m", tuple(rows)), resamples=0)
    named = [{names[item] for item in said} for said in chosen]
    gold = [{names[defect]} if defect in names else set() for defect in defects]
    known = [number for number, found in enumerate(gold) if found]
    hits = [len(named[number] & gold[number]) for number in known]
    said_yes = [number for number in known if answers[number] == "yes"]
    normal = [number for number in range(len(rows)) if not gold[number]]
    expected = {
        "violation_recall": np.mean([hit > 0 for hit in hits]),
        "violation_precision": sum(hits) / sum(len(named[number]) for number in known),
        "hallucinated": np.mean([bool(named[number]) for number in normal]),
        "consistency": np.mean(
            [bool(found) == (answer == "yes") for found, answer in zip(named, answers, strict=True)]
        ),
        "wrong_reason": np.mean([not named[number] & gold[number] for number in said_yes]),
    }
    for name, value in expected.items():
        assert score.figures[name].value == pytest.approx(float(value), abs=1e-12), name
    kappa = cohen_kappa_score([bool(found) for found in named], [answer == "yes" for answer in answers])
    assert score.kappa == pytest.approx(kappa, abs=1e-12)
    other = System("n", tuple(judged(number, defect, NORMAL, "no") for number, defect in enumerate(defects)))
    difference = compare_rationales(System("m", tuple(rows)), other, resamples=200)["violation_recall"]
    assert difference.value == pytest.approx(expected["violation_recall"], abs=1e-12)
    assert difference.low < difference.value < difference.high


COUNTS = [
    ("screw_bag", "good", "I count two nuts and two washers.", (2, 2)),
    ("screw_bag", "1_missing_nut", "There are two nuts and 2 washers.", (1, 2)),
    ("screw_bag", "1_additional_long_screw", "The query has two long screws.", (1, 1)),
    ("screw_bag", "good", "The reference has three nuts.", (0, 0)),
    ("breakfast_box", "0_nectarines_3_tangerines", "There are three tangerines instead of two tangerines.", (1, 1)),
    ("pushpins", "missing_pushpin", "Only fourteen pushpins are left.", (1, 1)),
    ("juice_bottle", "good", "There are two labels.", (0, 0)),
]


@pytest.mark.parametrize(("category", "defect", "text", "counts"), COUNTS)
def test_stated_counts_are_held_against_the_true_ones(category, defect, text, counts) -> None:
    row = judged(0, defect, text, category=category)
    found = score_rationales(System("m", (row,)), resamples=0).figures["counts"].value
    assert found == (counts[0] / counts[1] if counts[1] else None)


def test_a_kind_alone_makes_no_reasoning_right_or_wrong() -> None:
    truth = judged(0, "unnamed", "x").truth
    assert is_wrong_reason(truth, "A cable is missing.") is None
    assert is_wrong_reason(judged(0, "missing_cable", "x").truth, "A cable is bent.") is True
    assert is_wrong_reason(judged(0, "missing_cable", "x").truth, "A cable is missing.") is False


def test_the_commands_print_the_reasoning(write_run, tmp_path, capsys) -> None:
    predictions, data = write_run({"screw_bag": Confusion(tp=6, fp=1, tn=9, fn=4)})
    twin = tmp_path / "twin.jsonl"
    twin.write_bytes(predictions.read_bytes())
    words = ["--data", str(data), "--resamples", "20", "--rationales"]
    with pytest.raises(SystemExit) as stop:
        main(["score", str(predictions), *words])
    assert stop.value.code == 0
    assert "violation invented on a normal query" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["score", str(predictions), *words, "--json"])
    (found,) = json.loads(capsys.readouterr().out)["rationales"]
    assert found["figures"]["hallucinated"]["value"] == pytest.approx(1 / 10)
    assert found["figures"]["consistency"]["value"] == 1.0
    with pytest.raises(SystemExit):
        main(["compare", str(predictions), str(twin), *words, "--json"])
    (found,) = json.loads(capsys.readouterr().out)["rationales"]
    assert found["hallucinated"]["value"] == 0.0
