"""`easyr1 check` of the reward and its options."""

from __future__ import annotations

import pytest
from tests.trainers.preflight.kit import (
    Broken,
    alarms,
    assert_found,
    nameless,
)

#: A reward whose pattern no line break matches.
ONE_LINE = """
import re
def score(text):
    return float(bool(re.search('<answer> (yes|no) </answer>', text)))
def main(rows):
    return [{'overall': score(row['response'])} for row in rows]
"""

BROKEN = {
    "no reward": Broken(
        ["worker.reward.reward_function=null"], "error: worker.reward.reward_function", "no reward is named"
    ),
    "missing reward file": Broken(
        ["worker.reward.reward_function=~/none.py:f"], "error: worker.reward", "no such reward file"
    ),
    "missing reward function": Broken(
        ["worker.reward.reward_function=!/list.py:f"],
        "error: worker.reward",
        "no function f",
        lambda f: (f / "list.py").write_text("def main(rows):\n return [{'overall': 1.0} for row in rows]"),
    ),
    "reward import fails": Broken(
        ["worker.reward.reward_function=!/import.py"],
        "error: worker.reward",
        "the import fails",
        lambda f: (f / "import.py").write_text("import nothing_of_the_kind"),
    ),
    "too few scores": Broken(
        ["worker.reward.reward_function=!/few.py"],
        "error: worker.reward",
        "1 scores for 6 responses",
        lambda f: (f / "few.py").write_text("def main(rows):\n return [{'overall': 1.0}]"),
    ),
    "no overall": Broken(
        ["worker.reward.reward_function=!/bare.py"],
        "error: worker.reward",
        "a dict with overall",
        lambda f: (f / "bare.py").write_text("def main(rows):\n return [{'score': 1.0} for row in rows]"),
    ),
    "score not a float": Broken(
        ["worker.reward.reward_function=!/text.py"],
        "error: worker.reward",
        "plain floats",
        lambda f: (f / "text.py").write_text(
            "def main(rows):\n return [{'overall': 1.0, 'said': 'yes'} for row in rows]"
        ),
    ),
    "slash in a key": Broken(
        ["worker.reward.reward_function=!/slash.py"],
        "error: worker.reward",
        "has a slash",
        lambda f: (f / "slash.py").write_text(
            "def main(rows):\n return [{'overall': 1.0, 'a/b': 1.0} for row in rows]"
        ),
    ),
    "reward raises": Broken(
        ["worker.reward.reward_function=!/raise.py"],
        "error: worker.reward",
        "ZeroDivisionError",
        lambda f: (f / "raise.py").write_text("def main(rows):\n return [{'overall': 1 / 0} for row in rows]"),
    ),
    "constant reward": Broken(
        ["worker.reward.reward_function=!/list.py"],
        "warning: worker.reward",
        "trains nothing",
        lambda f: (f / "list.py").write_text("def main(rows):\n return [{'overall': 1.0} for row in rows]"),
    ),
    "unknown reward option": Broken(
        ["worker.reward.reward_function_kwargs.weight=1"],
        "error: worker.reward.reward_function_kwargs.weight",
        "no such option",
    ),
    "reward option mistyped": Broken(
        ["worker.reward.reward_function_kwargs={structure_wieght: 0.5}"],
        "error: worker.reward.reward_function_kwargs.structure_wieght",
        "the closest is structure_weight",
    ),
    "weight as text": Broken(
        ["worker.reward.reward_function_kwargs={naming_weight: 'a fifth'}"],
        "error: worker.reward.reward_function_kwargs.naming_weight",
        "'a fifth' is not a number",
    ),
    "negative weight": Broken(
        ["worker.reward.reward_function_kwargs={accuracy_weight: -0.5}"],
        "error: worker.reward.reward_function_kwargs.accuracy_weight",
        "a number from 0 on",
    ),
    "weights all zero": Broken(
        ["worker.reward.reward_function_kwargs={structure_weight: 0, accuracy_weight: 0}"],
        "error: worker.reward.reward_function_kwargs.accuracy_weight",
        "every weight is 0",
    ),
    "overlong without a limit": Broken(
        ["worker.reward.reward_function_kwargs={overlong_weight: 1.0}"],
        "error: worker.reward.reward_function_kwargs.overlong_limit",
        "data.max_response_length",
    ),
    "overlong limit out of reach": Broken(
        ["worker.reward.reward_function_kwargs={overlong_weight: 1.0, overlong_limit: 1024}"],
        "error: worker.reward.reward_function_kwargs.overlong_limit",
        "no response reaches the penalty",
    ),
    "overlong limit before the cut": Broken(
        ["worker.reward.reward_function_kwargs={overlong_weight: 1.0, overlong_limit: 256}"],
        "warning: worker.reward.reward_function_kwargs.overlong_limit",
        "data.max_response_length is 512",
    ),
    "too short to be long enough": Broken(
        [
            "data.max_response_length=100",
            "worker.reward.reward_function_kwargs={soft_length_weight: 0.1, soft_length_shortest: 200}",
        ],
        "error: worker.reward.reward_function_kwargs.soft_length_shortest",
        "above data.max_response_length, 100",
    ),
    "never too long": Broken(
        ["worker.reward.reward_function_kwargs={soft_length_weight: 0.1, soft_length_longest: 600}"],
        "warning: worker.reward.reward_function_kwargs.soft_length_longest",
        "so no response is too long",
    ),
    "nothing to name": Broken(
        ["worker.reward.reward_function_kwargs={naming_weight: 0.1}", "data.train_files=!/nameless.parquet"],
        "error: worker.reward.reward_function_kwargs.naming_weight",
        "20 of 20 anomalous pairs",
        lambda f: nameless(f / "nameless.parquet"),
    ),
    "reward of nothing": Broken(
        ["worker.reward.reward_function=!/none_value.py"],
        "error: worker.reward",
        "of type NoneType",
        lambda f: (f / "none_value.py").write_text(
            "def main(rows):\n return [{'overall': 1.0, 'accuracy': None} for row in rows]"
        ),
    ),
    "reward of numpy": Broken(
        ["worker.reward.reward_function=!/numpy_value.py"],
        "error: worker.reward",
        "float(value)",
        lambda f: (f / "numpy_value.py").write_text(
            "import numpy\ndef main(rows):\n return [{'overall': numpy.float32(1)} for row in rows]"
        ),
    ),
    "reward that is no number": Broken(
        ["worker.reward.reward_function=!/nan.py"],
        "error: worker.reward",
        "poison",
        lambda f: (f / "nan.py").write_text("def main(rows):\n return [{'overall': float('nan')} for row in rows]"),
    ),
    "reward of wrong answers": Broken(
        ["worker.reward.reward_function=!/inverted.py"],
        "warning: worker.reward.reward_function",
        "it gives 0 to the right answer and 1 to the wrong one",
        lambda f: (f / "inverted.py").write_text(
            "def main(rows):\n return [{'overall': float('> yes <' in row['response'])} for row in rows]"
        ),
    ),
    "reward with a relative import": Broken(
        ["worker.reward.reward_function=!/relative.py"],
        "error: worker.reward",
        "the import fails",
        lambda f: (f / "relative.py").write_text("from . import list\ndef main(rows): ..."),
    ),
    "reward trips over line breaks": Broken(
        ["worker.reward.reward_function=!/one_line.py"],
        "warning: worker.reward.reward_function",
        "0 instead of 1 to the same answer with line breaks",
        lambda f: (f / "one_line.py").write_text(ONE_LINE),
    ),
    "filter by an unknown key": Broken(
        ["algorithm.online_filtering=true", "algorithm.filter_key=accuracy_normalized"],
        "error: algorithm.filter_key",
        "a key of the reward: overall, structure",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name, tmp_path, workshop, good_words, monkeypatch):
    assert_found(BROKEN[name], tmp_path, workshop, good_words, monkeypatch)


def test_all_optional_rewards_give_no_alarm(good_words):
    options = (
        "worker.reward.reward_function_kwargs={soft_length_weight: 0.1, naming_weight: 0.2, overlong_weight: 0.5, "
        "overlong_limit: '${data.max_response_length}'}"
    )
    assert alarms([*good_words, options]) == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys\nsys.exit(0)", "it ended Python with exit code 0"),
        ("import os\nos._exit(3)", "it ended Python with exit code 3"),
        ("def main(rows):\n raise SystemExit", "it ended Python with exit code 0"),
        ("while True: pass", "within 2 s"),
        ("def main(rows):\n while True: pass", "within 2 s"),
        ("import time\ntime.sleep(60)", "within 2 s"),
    ],
)
def test_a_reward_that_exits_or_never_returns_is_a_finding(code, says, tmp_path, good_words, monkeypatch):
    if "within" in says:
        monkeypatch.setattr("lad_reasoner.training.preflight.reward_probe.TIME_LIMIT", 2)
    (tmp_path / "reward.py").write_text(code)
    (line,) = alarms([*good_words, f"worker.reward.reward_function={tmp_path}/reward.py"])
    assert line.startswith("error: worker.reward.reward_function: it ")
    assert says in line
