"""The rewards: arXiv 2504.12749, eq. 7."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_reasoner.task.gold import Gold, read_gold
from lad_reasoner.task.response import parse
from lad_reasoner.task.rewards import accuracy_reward, rlad_reward, structure_reward

GOOD = "<think> all parts match </think><answer> no </answer>"

REWARDS = [
    (GOOD, "no", 1.0, 1.0),  # form kept, right
    (GOOD, "yes", 1.0, 0.0),  # form kept, wrong
    ("<answer> no </answer>", "no", 0.0, 1.0),  # right, without reasoning
    ("no", "no", 0.0, 0.0),  # no form, so nothing to read an answer from
    (GOOD.replace(" no ", " maybe "), "no", 1.0, 0.0),  # form kept, no label
]


@pytest.mark.parametrize(("text", "label", "structure", "accuracy"), REWARDS)
def test_parts_and_their_weighted_sum(text, label, structure, accuracy) -> None:
    response = parse(text)
    assert structure_reward(response) == structure
    assert accuracy_reward(response, label) == accuracy
    scores = rlad_reward(text, {"label": label}, structure_weight=0.25, accuracy_weight=0.75)
    assert scores["overall"] == 0.25 * structure + 0.75 * accuracy


def test_the_weights_of_the_paper_are_the_default() -> None:
    assert rlad_reward(GOOD, {"label": "yes"})["overall"] == 0.5
    assert rlad_reward("<answer> no </answer>", {"label": "no"})["overall"] == 0.5
    assert rlad_reward(GOOD, {"label": "no"})["overall"] == 1.0


@given(st.text(), st.sampled_from(["yes", "no"]))
def test_every_response_falls_in_exactly_one_cell_of_the_confusion_matrix(text, label) -> None:
    scores = rlad_reward(text, json.dumps({"label": label}))
    assert all(type(value) is float for value in scores.values())
    assert scores["tp"] + scores["fp"] + scores["tn"] + scores["fn"] == 1.0
    assert scores["tp"] + scores["tn"] == scores["accuracy"]
    assert scores["tp"] + scores["fn"] == float(label == "yes")
    assert 0.0 <= scores["overall"] <= 1.0


@pytest.mark.parametrize("label", ["yes", "no"])
def test_a_bare_label_is_a_gold_answer_like_the_object(label: str) -> None:
    forms = [label, f" {label}\n", json.dumps({"label": label}), {"label": label}]
    assert [read_gold(form) for form in forms] == [Gold(label)] * 4
    assert [rlad_reward(GOOD, form)["overall"] for form in forms] == [1.0 if label == "no" else 0.5] * 4


def test_a_gold_object_keeps_what_it_states() -> None:
    stated = {
        "label": "yes",
        "category": "pushpins",
        "kind": "logical",
        "defect": "missing",
        "choice": {"letter": "A"},
    }
    assert read_gold(json.dumps(stated)) == Gold("yes", "pushpins", "logical", "missing", {"letter": "A"})


UNREADABLE = [
    "",
    "Yes",
    "yes no",
    "{}",
    '"yes"',
    '{"label": "maybe"}',
    '["yes"]',
    "null",
    '{"label": ["yes"]}',
    '{"label": "yes", "choice": {"letter": ""}}',  # an absent answer would be right
    '{"label": "yes", "choice": {"letter": "b"}}',  # no answer would be
    '{"label": "yes", "choice": {"letter": "AB"}}',
    '{"label": "yes", "choice": {"letter": 1, "options": {"A": "x"}}}',
    '{"label": "yes", "choice": {"letter": "C", "options": {"A": "x", "B": "y"}}}',
    '{"label": "yes", "choice": {"letter": "A", "options": {"A": "x", "b": "y"}}}',
    "{",
    "[" * 5000,
]


@pytest.mark.parametrize("gold", [*UNREADABLE, None, 1, ["yes"]])
def test_a_gold_answer_without_a_label_is_named(gold: object) -> None:
    with pytest.raises(ValueError, match="gold answer"):
        read_gold(gold)
