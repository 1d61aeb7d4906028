"""Answers by class: what is read, what is right, and what it pays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_reasoner.task.classes import CLASS_NAMES, gold_classes, read_class, right_answer, wrong_answer
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.rewards import rlad_reward
from lad_reasoner.task.violations import LOGICAL_VIOLATIONS
from lad_reasoner.training.reward_keys import score_response

ANSWERS = [
    ("normal", "normal"),
    (" NORMAL ".strip(), "normal"),
    ("structural", "structural"),
    ("structural: scratch", "structural"),
    ("logical: missing pushpin", "missing"),
    ("Logical:  wrong color", "color"),
    ("logical: one additional nut", "extra"),
    ("logical: compartments swapped", "swapped"),
    ("logical", "logical"),
    ("logical:", "logical"),
    ("logical: something odd", "logical"),
    ("logical: missing or extra", "logical"),
    ("logical: not missing", "logical"),
    ("logical: no missing part", "logical"),
    ("logical: pin is not misplaced", "logical"),
    ("logical: no pushpin in the tray", "missing"),
    ("logical: scratch", "logical"),
    ("normal: missing", None),
    ("missing pushpin", None),
    ("yes", None),
    ("", None),
    ("logical: " + "missing " * 20, None),
    *((f"logical: {name} screw", name) for name in sorted(LOGICAL_VIOLATIONS)),
]


@pytest.mark.parametrize(("words", "expected"), ANSWERS)
def test_the_words_of_an_answer_state_one_class_or_none(words: str, expected: str | None) -> None:
    assert read_class(words) == expected


@given(st.text(max_size=200))
def test_every_text_is_read(words: str) -> None:
    assert read_class(words) in {None, *CLASS_NAMES}


GOLDS = [
    ("no", "good", "good", {"normal"}),
    ("yes", "logical", "missing_pushpin", {"missing"}),
    ("yes", "logical", "missing_pushpin+wrong_color", {"missing", "color"}),
    ("yes", "logical", "combined", {"logical"}),
    ("yes", "structural", "missing_pushpin", {"structural"}),
    ("yes", "appearance", "missing_cable", {"structural"}),
    ("yes", "color", "cable_swap", {"color", "swapped"}),
    ("yes", "existence", "unknown_name_of_mine", {"type"}),
    ("yes", "number", "batch_7", {"missing", "extra", "count"}),
    ("yes", "own", "scratch", {"structural"}),
    ("yes", "own", "wrong_count", {"count"}),
    ("yes", "own", "batch_7", set()),
]


@pytest.mark.parametrize(("label", "kind", "defect", "expected"), GOLDS)
def test_the_kind_and_the_name_decide_the_right_classes(label, kind, defect, expected) -> None:
    if defect == "unknown_name_of_mine":
        expected = expected | {"missing", "extra"}
    assert gold_classes(label, kind, defect) == expected


def gold(label: str, kind: str, defect: str) -> str:
    return json.dumps({"label": label, "category": "c", "kind": kind, "defect": defect, "answers": "classes"})


REWARDS = [
    ("logical", "missing_nut", "logical: missing nut", 1.0, "tp"),
    ("logical", "missing_nut", "logical: extra nut", 0.5, "tp"),
    ("logical", "missing_nut", "logical", 0.5, "tp"),
    ("logical", "missing_nut", "structural", 0.0, "tp"),
    ("logical", "missing_nut", "normal", 0.0, "fn"),
    ("logical", "missing_nut", "yes", 0.0, "fn"),
    ("logical", "combined", "logical: length", 1.0, "tp"),
    ("logical", "combined", "structural", 0.0, "tp"),
    ("structural", "dent", "structural", 1.0, "tp"),
    ("structural", "dent", "logical: missing", 0.0, "tp"),
    ("good", "good", "normal", 1.0, "tn"),
    ("good", "good", "logical: missing", 0.0, "fp"),
    ("good", "good", "no", 0.0, "fp"),
]


@pytest.mark.parametrize(("kind", "defect", "answer", "credit", "cell"), REWARDS)
def test_credit_is_paid_and_the_class_is_mapped_to_yes_or_no(kind, defect, answer, credit, cell) -> None:
    truth = gold("no" if kind == "good" else "yes", kind, defect)
    text = f"<think> compared </think><answer> {answer} </answer>"
    scores = rlad_reward(text, truth, structure_weight=0.25, accuracy_weight=0.75)
    assert scores["overall"] == 0.25 + 0.75 * credit
    assert (scores["credit"], scores["accuracy"], scores[cell]) == (credit, float(credit == 1.0), 1.0)
    assert sum(scores[name] for name in ("tp", "fp", "tn", "fn")) == 1.0
    logged = score_response(text, truth)
    assert logged["overall"] == 0.5 + 0.5 * credit
    assert logged["accuracy_c"] == scores["accuracy"]


def test_an_answer_by_class_earns_nothing_where_yes_or_no_is_asked() -> None:
    text = "<think> compared </think><answer> normal </answer>"
    assert rlad_reward(text, '{"label": "no", "kind": "good"}')["overall"] == 0.5
    with pytest.raises(ValueError, match="answers is 'letters', not yes-no or classes"):
        read_gold('{"label": "no", "answers": "letters"}')


@pytest.mark.parametrize(
    "truth",
    [
        "yes",
        '{"label": "no"}',
        *(gold("no" if kind == "good" else "yes", kind, defect) for _, kind, defect, right in GOLDS if right),
        json.dumps({"label": "yes", "choice": {"letter": "B", "options": {"A": "Yes.", "B": "No."}}}),
    ],
)
def test_the_right_answer_earns_all_and_the_wrong_one_nothing(truth: str) -> None:
    for words, paid in ((right_answer(read_gold(truth)), 1.0), (wrong_answer(read_gold(truth)), 0.5)):
        assert score_response(f"<think> compared </think><answer> {words} </answer>", truth)["overall"] == paid
