"""Both trainers' reward adapters: keys, types, categories, and any EasyR1 reward file."""

from __future__ import annotations

import json

import pytest

from lad_reasoner.errors import DataError, UsageError
from lad_reasoner.trainers.easyr1_reward import compute_score
from lad_reasoner.trainers.reward_file import load_reward, split_reward
from lad_reasoner.trainers.reward_keys import BY_CATEGORY
from lad_reasoner.trainers.verl_reward import compute_score as verl_score

GOLD = json.dumps({"label": "yes", "category": "screw_bag", "kind": "logical", "defect": "missing"})
RIGHT = "<think> a screw is missing </think><answer> yes </answer>"


def row(response, gold=GOLD):
    return {"response": response, "response_length": 12, "ground_truth": gold}


def test_easyr1_gets_one_dict_a_row_in_order():
    scores = compute_score([row(RIGHT), row("no idea"), row("<answer> yes </answer>")])
    assert [score["overall"] for score in scores] == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("response", [RIGHT, "", "<answer> no </answer>"])
def test_every_value_is_a_plain_float_and_no_key_has_a_slash(response):
    (score,) = compute_score([row(response, GOLD.replace("screw_bag", "visa/pcb1"))])
    assert {type(value) for value in score.values()} == {float}
    assert not [key for key in score if "/" in key]
    assert score["accuracy_visa_pcb1"] == score["accuracy"]


def test_each_category_has_its_own_keys():
    (score,) = compute_score([row(RIGHT)])
    for part in BY_CATEGORY:
        assert score[f"{part}_screw_bag"] == score[part]
    (plain,) = compute_score([row(RIGHT, '{"label": "yes"}')])
    assert set(plain) == {"overall", "structure", "accuracy", "tp", "fp", "tn", "fn"}


def test_weights_come_from_the_config():
    (score,) = compute_score([row("<answer> yes </answer>")], structure_weight=0.1, accuracy_weight=0.9)
    assert score["overall"] == pytest.approx(0.9)


def test_verl_gets_the_same_numbers_with_its_own_name_for_the_reward():
    (easyr1,) = compute_score([row(RIGHT)])
    verl = verl_score("mvtec_loco/screw_bag", RIGHT, GOLD, {"num_turns": 2})
    assert verl.pop("score") == easyr1.pop("overall")
    assert verl == easyr1


@pytest.mark.parametrize("gold", ["", "yes", "[]", '{"answer": "yes"}', '{"label": "maybe"}', "{"])
def test_an_unreadable_gold_is_an_error_that_shows_it(gold):
    with pytest.raises(ValueError, match="gold answer"):
        compute_score([row(RIGHT, gold)])


def test_a_users_batch_and_sequential_files_are_called_as_easyr1_calls_them(tmp_path):
    batch = tmp_path / "batch.py"
    batch.write_text(
        "def main(rows, k=1):\n    return [{'overall': k * float(len(row['response']))} for row in rows]\n"
    )
    assert load_reward(str(batch)).score([row("abc"), row("a")], k=2) == [{"overall": 6.0}, {"overall": 2.0}]
    one = tmp_path / "one.py"
    one.write_text("REWARD_TYPE = 'sequential'\ndef f(row):\n    return {'overall': float(row['response_length'])}\n")
    assert load_reward(f"{one}:f").score([row("abc")]) == [{"overall": 12.0}]


@pytest.mark.parametrize(
    ("text", "function", "error", "match"),
    [
        (None, "main", DataError, "no reward file"),
        ("def main(rows): ...", "other", UsageError, "no function other"),
        ("import nothing_of_the_kind", "main", DataError, "ModuleNotFoundError on import"),
        ("from . import sibling\ndef main(rows): ...", "main", DataError, "ImportError on import"),
        ("REWARD_TYPE = 'both'\ndef main(rows): ...", "main", UsageError, "REWARD_TYPE 'both'"),
    ],
)
def test_a_broken_reward_file(tmp_path, text, function, error, match):
    file = tmp_path / "reward.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=match):
        load_reward(f"{file}:{function}")


def test_the_function_is_main_if_none_is_named():
    assert split_reward("/a/b.py") == (split_reward("/a/b.py:f")[0], "main")
