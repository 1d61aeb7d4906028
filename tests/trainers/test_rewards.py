"""Both trainers' reward adapters: keys, types, categories, and any EasyR1 reward file."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.training.easyr1.reward import compute_score
from lad_reasoner.training.easyr1.reward_file import load_reward, split_reward
from lad_reasoner.training.reward_keys import BY_CATEGORY
from lad_reasoner.training.verl.reward import compute_score as verl_score

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
    for part in set(BY_CATEGORY) - {"naming", "box"}:
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


OPTIONAL = {"soft_length_weight": 0.1, "overlong_weight": 0.5, "overlong_limit": 20, "naming_weight": 0.2}


def test_optional_rewards_are_off_and_leave_no_key():
    (score,) = compute_score([row(RIGHT)])
    assert not {"soft_length", "overlong", "naming", "naming_screw_bag"} & set(score)


def test_optional_rewards_add_to_the_reward_what_their_parts_say():
    gold = GOLD.replace("missing", "1_missing_nut")
    (score,) = compute_score([row(RIGHT, gold) | {"response_length": 18}], **OPTIONAL)
    assert (score["soft_length"], score["overlong"], score["naming"]) == (18 / 50, -0.5, 1.0)
    assert score["overall"] == pytest.approx(1.0 + 0.1 * 18 / 50 - 0.5 * 0.5 + 0.2)
    assert score["naming_screw_bag"] == score["naming"]
    assert {type(value) for value in score.values()} == {float}


def test_a_weight_of_zero_measures_without_paying():
    (score,) = compute_score([row(RIGHT)], naming_weight=0.0)
    assert (score["overall"], score["naming"]) == (1.0, 1.0)


def test_naming_is_measured_on_anomalous_rows_only():
    normal = GOLD.replace("yes", "no")
    assert "naming" not in compute_score([row(RIGHT, normal)], **OPTIONAL)[0]
    assert "naming" not in compute_score([row(RIGHT, '{"label": "yes"}')], **OPTIONAL)[0]


def test_both_adapters_pay_alike_and_a_plain_verl_run_says_what_it_lacks():
    options = {"naming_weight": 0.2}
    (easyr1,) = compute_score([row(RIGHT)], **options)
    verl = verl_score("mvtec_loco/screw_bag", RIGHT, GOLD, None, **options)
    assert verl["score"] == easyr1["overall"] == pytest.approx(1.2)
    with pytest.raises(ValueError, match="overlong_weight needs the length of the response in tokens"):
        verl_score("mvtec_loco/screw_bag", RIGHT, GOLD, None, overlong_weight=1.0, overlong_limit=100)


@pytest.mark.frameworks
def test_verls_manager_gives_our_file_the_tokens_and_the_options(repository):
    import asyncio

    import torch
    from omegaconf import OmegaConf

    from lad_reasoner.training.verl.reward_manager import EasyR1RewardManager

    class Tokenizer:
        def decode(self, ids, *, skip_special_tokens):
            return "".join(map(chr, ids.tolist()))

    item = SimpleNamespace(
        batch={
            "responses": torch.tensor([*map(ord, RIGHT), 0, 0]),
            "attention_mask": torch.tensor([1] * (5 + len(RIGHT)) + [0, 0]),
        },
        non_tensor_batch={"reward_model": {"ground_truth": GOLD}},
    )
    file = f"{repository}/plugin/lad_reasoner/training/easyr1/reward.py:compute_score"
    options = {"overlong_weight": 1.0, "overlong_limit": len(RIGHT) + 5, "overlong_buffer": 10, "naming_weight": 0.2}
    kwargs = {"reward_function": file, "reward_function_kwargs": options, "skip_special_tokens": True}
    config = OmegaConf.create({"reward": {"custom_reward_function": {"reward_kwargs": kwargs}}})
    result = asyncio.run(EasyR1RewardManager(config, Tokenizer(), None).run_single([item]))
    assert result["reward_extra_info"]["overlong"] == -0.5
    assert result["reward_score"] == pytest.approx(1.0 - 0.5 + 0.2)


def test_a_bare_gold_earns_what_the_object_earns_without_a_category():
    bare, stated = compute_score([row(RIGHT, "yes"), row(RIGHT, '{"label": "yes"}')], naming_weight=0.2)
    assert bare == stated
    assert bare["overall"] == 1.0


@pytest.mark.parametrize("gold", ["", "perhaps", "[]", '{"answer": "yes"}', '{"label": "maybe"}', "{"])
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
        (None, "main", DataError, "no such reward file"),
        ("def main(rows): ...", "other", UsageError, "no function other"),
        ("import nothing_of_the_kind", "main", DataError, "the import fails with ModuleNotFoundError"),
        ("from . import sibling\ndef main(rows): ...", "main", DataError, "the import fails with ImportError"),
        ("REWARD_TYPE = 'both'\ndef main(rows): ...", "main", UsageError, "REWARD_TYPE is 'both'"),
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


def rows_of(*answers: str, gold: str = '{"label": "yes"}') -> list[dict[str, object]]:
    return [
        {"response": f"<think> a </think><answer> {answer} </answer>", "response_length": 9, "ground_truth": gold}
        for answer in answers
    ]


def test_groups_that_are_all_right_or_all_wrong_are_counted():
    from lad_reasoner.training.easyr1.reward import compute_score

    rows = [*rows_of("yes", "yes"), *rows_of("no", "no"), *rows_of("yes", "no"), *rows_of("yes", "yes")]
    scores = compute_score(rows, group_size=2)
    assert [score["unanimous_right"] for score in scores] == [1, 1, 0, 0, 0, 0, 1, 1]
    assert [score["unanimous_wrong"] for score in scores] == [0, 0, 1, 1, 0, 0, 0, 0]
    assert [score["reward_spread"] for score in scores] == [0, 0, 0, 0, 0.25, 0.25, 0, 0]
    assert all(type(value) is float for score in scores for value in score.values())


@pytest.mark.parametrize("seed", range(20))
def test_group_figures_are_those_of_plain_numpy(seed):
    from lad_reasoner.training.easyr1.reward import compute_score

    rng = np.random.default_rng(seed)
    size, right = int(rng.integers(2, 9)), rng.random()
    answers = rng.choice(["yes", "no", "perhaps"], size=(12, size), p=[right, (1 - right) / 2, (1 - right) / 2])
    scores = compute_score(rows_of(*answers.flatten()), group_size=size)
    rewards = np.where(answers == "yes", 1.0, 0.5)  # the template is kept, so half of the reward is certain
    wanted = {
        "unanimous_right": np.repeat((answers == "yes").all(axis=1), size),
        "unanimous_wrong": np.repeat((answers != "yes").all(axis=1), size),
        "reward_spread": np.repeat(rewards.std(axis=1), size),
    }
    for name, values in wanted.items():
        assert [score[name] for score in scores] == pytest.approx(values.astype(float), abs=1e-12), name


def test_validation_and_batches_of_one_have_no_groups():
    from lad_reasoner.training.easyr1.reward import compute_score

    single = [*rows_of("yes"), *rows_of("no", gold='{"label": "no"}')]
    for rows in (single, single[:1], rows_of("yes", "no", "yes")):
        assert not any("unanimous_right" in score for score in compute_score(rows, group_size=2))


@pytest.mark.frameworks
def test_verls_groups_are_those_of_its_prompts():
    buffer = pytest.importorskip("lad_reasoner.training.verl.replay_buffer")
    scores = [{"overall": 1.0, "accuracy": 1.0}, {"overall": 0.5, "accuracy": 0.0}, {"overall": 1.0, "accuracy": 1.0}]
    names = ["p1_0_0", "p2_0_0", "p1_1_0", "p2_1_0"]
    buffer.add_group_keys(names, [*scores, third := {"overall": 0.0, "accuracy": 0.0}])
    assert [score["unanimous_right"] for score in scores] == [1.0, 0.0, 1.0]
    assert (third["unanimous_wrong"], third["reward_spread"]) == (1.0, 0.25)


@pytest.mark.frameworks
@pytest.mark.parametrize("seed", range(10))
def test_verls_group_figures_are_those_of_plain_numpy(seed):
    buffer = pytest.importorskip("lad_reasoner.training.verl.replay_buffer")
    rng = np.random.default_rng(seed)
    prompts, size = 9, int(rng.integers(2, 9))
    accuracy = (rng.random((prompts, size)) < rng.random((prompts, 1))).astype(float)
    overall = 0.5 * accuracy + rng.random((prompts, size))
    order = rng.permutation(prompts * size)  # verl's samples arrive in the order in which they end
    names = [f"prompt{place // size}_{place % size}_0" for place in order]
    scores = [{"overall": overall.flat[place], "accuracy": accuracy.flat[place]} for place in order]
    buffer.add_group_keys(names, scores)
    wanted = {
        "unanimous_right": accuracy.min(axis=1),
        "unanimous_wrong": 1 - accuracy.max(axis=1),
        "reward_spread": overall.std(axis=1),
    }
    for name, values in wanted.items():
        assert [score[name] for score in scores] == pytest.approx(values[order // size], abs=1e-12), name
