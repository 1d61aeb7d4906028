"""The optional rewards: their shapes, what they pay for, and what they never pay for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_reasoner.task.optional_rewards import (
    OptionalRewards,
    OptionError,
    defect_naming_reward,
    overlong_penalty,
    soft_length_reward,
)
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import KINDS
from lad_reasoner.task.violations import VIOLATIONS

LENGTHS = st.integers(0, 10_000)
DEFECTS = ["missing_cable", "color", "pill_type", "thread_side", "combined", "2_nectarines_1_tangerine", "unnamed", ""]


@given(LENGTHS, st.integers(1, 500), st.integers(0, 500))
def test_soft_length_is_a_share_that_is_whole_between_its_bounds(length, shortest, more):
    reward = soft_length_reward(length, shortest=shortest, longest=shortest + more)
    assert 0.0 <= reward <= 1.0
    assert (reward == 1.0) == (shortest <= length <= shortest + more)
    assert reward == 0.0 or 0 < length < 2 * (shortest + more)


@given(LENGTHS, LENGTHS, st.integers(1, 500))
def test_soft_length_grows_to_its_bounds_and_falls_behind_them(one, other, bound):
    near, far = sorted((one, other), key=lambda length: abs(length - bound))
    if (near - bound) * (far - bound) >= 0:  # on one side
        assert soft_length_reward(near, shortest=bound, longest=bound) >= soft_length_reward(
            far, shortest=bound, longest=bound
        )


@given(LENGTHS, st.integers(1, 2000), st.data())
def test_the_overlong_penalty_is_dapos(length, limit, data):
    buffer = data.draw(st.integers(1, limit))
    penalty = overlong_penalty(length, limit=limit, buffer=buffer)
    # arXiv 2503.14476, eq. 13, case by case.
    if length <= limit - buffer:
        assert penalty == 0.0
    elif length <= limit:
        assert penalty == ((limit - buffer) - length) / buffer
    else:
        assert penalty == -1.0


NAMED = [
    ("One cable is missing.", "existence", "missing_cable", 1.0),
    ("One cable is absent in the query.", "existence", "missing_cable", 1.0),
    ("The wrong number of cables.", "existence", "missing_cable", 0.0),  # not which: missing, extra and count differ
    ("The number of parts is wrong.", "number", "unnamed", 1.0),
    ("There is an additional cable.", "existence", "missing_cable", 0.0),  # the opposite
    ("The cables are swapped.", "color", "cable_swap", 1.0),
    ("The blue wire has a different colour.", "color", "cable_swap", 1.0),  # its kind
    ("The colors match.", "color", "color", 0.0),  # what is right is not named
    ("The nut lies upside down.", "functional", "flip", 1.0),
    ("It is another type: a different model of pill.", "functional", "pill_type", 1.0),
    ("The thread side is worn.", "functional", "thread_side", 1.0),  # by the defect's own name
    ("It is bent.", "functional", "combined", 1.0),  # the name says nothing, so the kind decides
    ("There are two tangerines too many.", "logical", "0_nectarines_4_tangerines", 1.0),
    ("No cable is missing, but one is cut.", "existence", "missing_cable", 0.0),  # denied
    ("The cable is not missing.", "existence", "missing_cable", 0.0),
    ("A cable isn't really missing.", "existence", "missing_cable", 0.0),
    ("No cracks, scratches or dents; a cable is missing.", "existence", "missing_cable", 1.0),
    ("A cable is missing and a scratch is on the case.", "existence", "missing_cable", 0.5),  # half of it is made up
    ("Missing, scratched, bent or stained: something is.", "existence", "missing_cable", 0.0),  # a list
    ("There is an anomaly in the query image.", "existence", "missing_cable", 0.0),
    ("", "existence", "missing_cable", 0.0),
    ("Something is wrong.", "", "unnamed", 0.0),
]


@pytest.mark.parametrize(("reasoning", "kind", "defect", "reward"), NAMED)
def test_what_names_the_defect(reasoning, kind, defect, reward):
    assert defect_naming_reward(reasoning, label="yes", kind=kind, defect=defect) == reward
    assert defect_naming_reward(reasoning.upper(), label="yes", kind=kind, defect=defect) == reward


@given(st.text(), st.sampled_from(KINDS), st.sampled_from(DEFECTS))
def test_a_normal_query_never_pays(reasoning, kind, defect):
    for text in (reasoning, "A cable is missing.", defect):
        assert defect_naming_reward(text, label="no", kind=kind, defect=defect) == 0.0


WORDS = st.sampled_from(
    ["missing", "extra", "wrong number", "discolored", "swapped", "wrong type", "too long", "bent", "broken"]
)


@settings(deadline=None)
@given(st.lists(WORDS, min_size=4, unique=True), st.sampled_from(KINDS), st.sampled_from(DEFECTS))
def test_a_list_of_defects_never_pays(words, kind, defect):
    assert defect_naming_reward(", ".join(words), label="yes", kind=kind, defect=defect) == 0.0


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(WORDS).map(" and ".join)), st.sampled_from(KINDS), st.sampled_from(DEFECTS))
def test_naming_is_a_share_and_total(reasoning, kind, defect):
    assert 0.0 <= defect_naming_reward(reasoning, label="yes", kind=kind, defect=defect) <= 1.0


@pytest.mark.timeout(60)  # a quadratic reader would need hours
@pytest.mark.parametrize("unit", ["missing ", "wrong ", "no ", "a", "different number ", "no, ", "colors ", "n't "])
def test_a_megabyte_of_reasoning_is_read_in_linear_time(unit):
    many = unit * ((1 << 20) // len(unit))
    assert defect_naming_reward(many, label="yes", kind="color", defect="color") in {0.0, 1.0}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_violation_can_be_named(name):
    from lad_reasoner.task.violations import named_violations

    example = {
        "count": "a wrong number",
        "color": "stained",
        "type": "a wrong type",
        "length": "too long",
        "place": "upside down",
        "hole": "pierced",
        "contamination": "dirty",
        "print": "smudged",
        "level": "overfilled",
    }.get(name, name)
    assert named_violations(f"It is {example}.") == {name}


GOLD = json.dumps({"label": "yes", "kind": "existence", "defect": "missing_cable"})
RIGHT = parse("<think> a cable is missing </think><answer> yes </answer>")
WRONG = parse("<think> a cable is missing </think><answer> no </answer>")
ALL = OptionalRewards.read(
    {"soft_length_weight": 0.1, "overlong_weight": 1.0, "overlong_limit": 100, "naming_weight": 0.2}
)


def test_consistency_pays_where_reasoning_and_right_answer_agree():
    rewards = OptionalRewards.read({"consistency_weight": 0.5})
    assert rewards.parts(RIGHT, GOLD, None) == (0.5, {"consistency": 1.0})
    assert rewards.parts(WRONG, GOLD, None) == (0.0, {"consistency": 0.0})
    silent = parse("<think> both images agree </think><answer> yes </answer>")
    assert rewards.parts(silent, GOLD, None) == (0.0, {"consistency": 0.0})
    normal = parse("<think> nothing is missing </think><answer> no </answer>")
    assert rewards.parts(normal, json.dumps({"label": "no"}), None) == (0.5, {"consistency": 1.0})
    assert "consistency" not in OptionalRewards.read({}).parts(RIGHT, GOLD, None)[1]


def test_length_and_naming_pay_for_right_answers_only():
    assert ALL.parts(RIGHT, GOLD, 60) == (pytest.approx(0.3), {"soft_length": 1.0, "overlong": 0.0, "naming": 1.0})
    assert ALL.parts(WRONG, GOLD, 60) == (0.0, {"soft_length": 0.0, "overlong": 0.0, "naming": 0.0})


def test_too_long_is_paid_for_by_right_and_wrong_alike():
    assert ALL.parts(WRONG, GOLD, 90)[0] == -0.5  # the buffer is a fifth of the limit, as in DAPO
    assert ALL.parts(WRONG, GOLD, 100)[0] == -1.0


@pytest.mark.parametrize(
    ("options", "name", "says"),
    [
        ({"naming": 0.2}, "naming", "naming_weight"),
        ({"structure_wieght": 0.5}, "structure_wieght", "structure_weight"),
        ({"naming_weight": "0.2"}, "naming_weight", "a number from 0 on"),
        ({"naming_weight": True}, "naming_weight", "a number from 0 on"),
        ({"naming_weight": -0.1}, "naming_weight", "a number from 0 on"),
        ({"naming_weight": float("nan")}, "naming_weight", "a number from 0 on"),
        ({"naming_weight": float("inf")}, "naming_weight", "a number from 0 on"),
        ({"naming_weight": None}, "naming_weight", "a number from 0 on"),
        ({"overlong_weight": 1.0}, "overlong_limit", "data.max_response_length"),
        ({"overlong_limit": 100}, "overlong_limit", "without overlong_weight"),
        ({"overlong_weight": 1.0, "overlong_limit": 0}, "overlong_limit", "at least 1"),
        ({"overlong_weight": 1.0, "overlong_limit": 10.5}, "overlong_limit", "whole number"),
        (
            {"overlong_weight": 1, "overlong_limit": 10, "overlong_buffer": 11},
            "overlong_buffer",
            "above overlong_limit",
        ),
        (
            {"soft_length_weight": 0.1, "soft_length_shortest": 400},
            "soft_length_shortest",
            "above soft_length_longest",
        ),
        ({"soft_length_longest": 400}, "soft_length_longest", "without soft_length_weight"),
    ],
)
def test_a_wrong_option_is_named(options, name, says):
    with pytest.raises(OptionError, match=rf"reward option {name}: .*{says}") as caught:
        OptionalRewards.read(options)
    assert caught.value.name == name
