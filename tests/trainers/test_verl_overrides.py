"""EasyR1's keys in verl's words: the meaning of each translation, and every key accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from lad_reasoner.support.errors import UsageError
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.easyr1.keys import read_snapshot
from lad_reasoner.training.verl.overrides import HARMLESS, LAST_STEP_ONLY, REFUSED, RULES, translate

KEYS = read_snapshot()
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
MEDIA = f"++{ROLLOUT}.engine_kwargs.vllm.limit_mm_per_prompt"
REWARD = "worker.reward.reward_function=plugin/lad_reasoner/training/easyr1/reward.py:compute_score"


def verl(*words: str) -> dict[str, object]:
    return translate(load_config([REWARD, *words], KEYS))


def test_every_key_stands_in_exactly_one_table():
    translated = [key for rule in RULES for key in rule.keys]
    harmless = [
        name
        for name, key in KEYS.items()
        if key.settable
        and any(name == entry or (entry.endswith("*") and name.startswith(entry[:-1])) for entry in HARMLESS)
    ]
    everything = [*translated, *harmless, *REFUSED]
    assert sorted(everything) == sorted(name for name, key in KEYS.items() if key.settable)


@pytest.mark.parametrize("key", list(REFUSED))
def test_a_refused_key_is_an_error_that_names_it(key):
    changed = {"bool": "true", "str": "other", "float": "3.5"}[KEYS[key].type]
    if KEYS[key].default is True:
        changed = "false"
    with pytest.raises(UsageError, match=key.replace(".", r"\.")):
        verl(f"{key}={changed}")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.rollout_batch_size=64"], {"data.train_batch_size": 64}),
        (["worker.actor.global_batch_size=64"], {f"{ACTOR}.ppo_mini_batch_size": 64}),
        (["data.val_batch_size=-1"], {"data.val_batch_size": None}),
        (["data.val_batch_size=100"], {"data.val_batch_size": 100}),
        (["trainer.max_steps=50"], {"trainer.total_training_steps": 50, "trainer.total_epochs": 50}),
        (["trainer.total_epochs=3"], {"trainer.total_training_steps": None, "trainer.total_epochs": 3}),
        (["trainer.val_freq=-1"], {"trainer.test_freq": -1}),
        (["trainer.save_freq=-1"], {"trainer.save_freq": LAST_STEP_ONLY}),
        (["trainer.save_freq=5"], {"trainer.save_freq": 5}),
        (["trainer.save_limit=-1"], {"trainer.max_actor_ckpt_to_keep": None}),
        (["trainer.save_model_only=true"], {f"{ACTOR}.checkpoint.save_contents": ["model"]}),
        (["trainer.find_last_checkpoint=false"], {"trainer.resume_mode": "disable"}),
        (
            ["trainer.load_checkpoint_path=/x/global_step_5"],
            {"trainer.resume_mode": "resume_path", "trainer.resume_from_path": "/x/global_step_5"},
        ),
        (
            ["algorithm.kl_coef=0.01"],  # eq. 7: in the reward
            {"algorithm.use_kl_in_reward": True, "algorithm.kl_ctrl.kl_coef": 0.01, f"{ACTOR}.use_kl_loss": False},
        ),
        (
            ["algorithm.use_kl_loss=true", "algorithm.kl_penalty=low_var_kl", "algorithm.kl_coef=0.02"],
            {
                "algorithm.use_kl_in_reward": False,
                f"{ACTOR}.use_kl_loss": True,
                f"{ACTOR}.kl_loss_type": "low_var_kl",
                f"{ACTOR}.kl_loss_coef": 0.02,
            },
        ),
        (
            ["algorithm.use_kl_loss=true", "algorithm.disable_kl=true"],  # EasyR1 has no reference model then
            {"algorithm.use_kl_in_reward": False, f"{ACTOR}.use_kl_loss": False},
        ),
        (["worker.actor.loss_avg_mode=seq"], {f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean"}),
        (["worker.actor.loss_type=gspo"], {f"{ACTOR}.policy_loss.loss_mode": "gspo"}),
        (["worker.actor.optim.lr_warmup_steps=5"], {f"{ACTOR}.optim.lr_warmup_steps": 5}),
        (
            ["worker.actor.optim.lr_warmup_steps=0", "worker.actor.optim.lr_warmup_ratio=0.1"],  # 0 steps in EasyR1
            {f"{ACTOR}.optim.lr_warmup_steps": 0, f"{ACTOR}.optim.lr_warmup_steps_ratio": 0.0},
        ),
        (
            ["worker.actor.optim.lr_warmup_ratio=0.1"],
            {f"{ACTOR}.optim.lr_warmup_steps": -1, f"{ACTOR}.optim.lr_warmup_steps_ratio": 0.1},
        ),
        (["data.max_prompt_length=1000"], {f"{ROLLOUT}.max_model_len": 1512}),
        (["worker.rollout.max_model_len=4096"], {f"{ROLLOUT}.max_model_len": 4096}),
        (
            ["worker.actor.model.freeze_vision_tower=true"],
            {
                "actor_rollout_ref.model.external_lib": "lad_reasoner.training.verl.frozen_vision",
                f"{ACTOR}.fsdp_config.use_orig_params": True,
            },
        ),
        (
            ["worker.actor.loss_type=sapo", "worker.actor.loss_avg_mode=seq"],
            {f"{ACTOR}.policy_loss.loss_mode": "sapo", f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean"},
        ),
        (
            # verl multiplies the budget by the ranks that share a sequence; a whole sequence must still fit.
            [
                "data.max_prompt_length=1000",
                "worker.actor.micro_batch_size_per_device_for_update=1",
                "worker.actor.ulysses_size=16",
            ],
            {f"{ACTOR}.ppo_max_token_len_per_gpu": 95},
        ),
        (["worker.actor.fsdp.torch_dtype=bf16"], {f"{ACTOR}.fsdp_config.model_dtype": "bf16"}),
        ([], {"actor_rollout_ref.ref.fsdp_config.model_dtype": "bf16"}),
        (
            ["worker.rollout.temperature=0.7", "worker.rollout.n=8"],  # EasyR1 validates as it trains, unless told
            {f"{ROLLOUT}.val_kwargs.temperature": 0.7, f"{ROLLOUT}.val_kwargs.n": 8},
        ),
        (
            ["worker.rollout.val_override_config={n: 1, temperature: 0.0}"],
            {f"{ROLLOUT}.val_kwargs.n": 1, f"{ROLLOUT}.val_kwargs.do_sample": False},
        ),
        (["worker.rollout.limit_images=2"], {MEDIA: {"image": 2, "video": 0}}),
        (["worker.rollout.limit_images=0"], {MEDIA: {"video": 0}}),
        (["worker.rollout.dtype=fp32"], {f"{ROLLOUT}.dtype": "float32"}),
        (
            [
                "worker.actor.model.lora.rank=16",
                "worker.actor.model.lora.target_modules='q_proj, v_proj'",
                "worker.actor.fsdp.torch_dtype=bf16",
            ],
            {
                "actor_rollout_ref.model.lora_rank": 16,
                "actor_rollout_ref.model.target_modules": ["q_proj", "v_proj"],
                f"{ROLLOUT}.load_format": "safetensors",
            },
        ),
        (
            ["data.max_prompt_length=1000", "worker.actor.micro_batch_size_per_device_for_update=2"],
            {f"{ACTOR}.ppo_max_token_len_per_gpu": 2 * (1000 + 512)},
        ),
    ],
)
def test_the_meaning_is_kept(words, expected):
    overrides = verl(*words)
    assert {name: overrides[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("algorithm.adv_estimator=gae", "grpo"),
        ("algorithm.kl_penalty=full", "low_var_kl"),
        ("worker.actor.loss_type=gspo_token", "gspo"),
        ("worker.rollout.val_override_config.seed=1", "val_override_config.seed"),
        ("data.train_files=/a.parquet@test", "split test"),
        ("worker.rollout.name=sglang", "vllm"),
        ("worker.actor.loss_type=sapo", "verl averages sapo over sequences"),
        ("worker.actor.model.lora.rank=16", "null with LoRA"),
    ],
)
def test_a_value_without_counterpart_is_an_error(word, says):
    with pytest.raises(UsageError, match=says):
        verl(word)


def test_a_users_reward_file_goes_to_verl_with_its_options(tmp_path):
    (tmp_path / "r.py").write_text("def f(rows, w): ...")
    overrides = verl(
        f"worker.reward.reward_function={tmp_path}/r.py:f", "worker.reward.reward_function_kwargs={w: 0.3}"
    )
    assert overrides["++reward.custom_reward_function.reward_kwargs"] == {
        "reward_function": f"{tmp_path}/r.py:f",
        "reward_function_kwargs": {"w": 0.3},
        "skip_special_tokens": True,
    }


def test_the_chat_template_is_handed_over_as_text(tmp_path):
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m }}{% endfor %}")
    overrides = verl(f"data.override_chat_template={tmp_path}/chat.jinja")
    assert overrides["actor_rollout_ref.model.custom_chat_template"] == Path(tmp_path / "chat.jinja").read_text()
