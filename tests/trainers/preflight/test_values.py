"""`easyr1 check` of values, alone and together."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.trainers.preflight.kit import (
    EASYR1,
    Broken,
    alarms,
    assert_found,
    findings,
    model_config,
)

from lad_reasoner.training.installed import Trainer

BROKEN = {
    "unknown key": Broken(["trainer.max_step=3"], "error: trainer.max_step", "did you mean trainer.max_steps"),
    "wrong type": Broken(["worker.rollout.n=many"], "error: worker.rollout.n", "int"),
    "validation file null": Broken(["data.val_files="], "error: data.val_files", "(EasyR1 declares str)"),
    "unknown estimator": Broken(["algorithm.adv_estimator=gpro"], "error: algorithm.adv_estimator", "grpo"),
    "unknown KL penalty": Broken(["algorithm.kl_penalty=k4"], "error: algorithm.kl_penalty", "low_var_kl"),
    "unknown loss": Broken(["worker.actor.loss_type=vanilla"], "error: worker.actor.loss_type", "default"),
    "unknown dtype": Broken(["worker.rollout.dtype=half"], "error: worker.rollout.dtype", "bf16"),
    "negative KL": Broken(["algorithm.kl_coef=-1"], "error: algorithm.kl_coef", "at least 0"),
    "no GPU asked for": Broken(["trainer.n_gpus_per_node=0"], "error: trainer.n_gpus_per_node", "at least 1"),
    "zero learning rate": Broken(["worker.actor.optim.lr=0"], "error: worker.actor.optim.lr", "above zero"),
    "endless learning rate": Broken(
        ["worker.actor.optim.lr=inf"], "error: worker.actor.optim.lr", "not a finite number"
    ),
    "no number": Broken(
        ["worker.actor.max_grad_norm=nan"], "error: worker.actor.max_grad_norm", "not a finite number"
    ),
    "endless KL": Broken(["algorithm.kl_coef=inf"], "error: algorithm.kl_coef", "out of range"),
    "betas": Broken(["worker.actor.optim.betas=[0.9,1]"], "error: worker.actor.optim.betas", "below 1"),
    "one sample a prompt": Broken(["worker.rollout.n=1"], "error: worker.rollout.n", "grpo needs at least 2"),
    "greedy training": Broken(
        ["worker.rollout.temperature=0"], "error: worker.rollout.temperature", "none has an advantage"
    ),
    "mini batch": Broken(["worker.actor.global_batch_size=5"], "error: data.rollout_batch_size", "a multiple of"),
    "experience micro batch": Broken(
        ["worker.actor.micro_batch_size_per_device_for_experience=5"],
        "error: worker.actor.micro_batch_size_per_device_for_experience",
        "5 does not divide rollout_batch_size x n, 32",
    ),
    "update micro batch": Broken(
        ["worker.actor.micro_batch_size_per_device_for_update=5"],
        "error: worker.actor.micro_batch_size_per_device_for_update",
        "does not divide 32",
    ),
    "more GPUs than samples divide into": Broken(
        ["trainer.n_gpus_per_node=3"], "error: trainer.n_gpus", "cannot share 32"
    ),
    "offload with accumulation": Broken(
        ["worker.actor.fsdp.enable_cpu_offload=true"], "error: worker.actor.fsdp.enable_cpu_offload", "offload_params"
    ),
    "mini rollouts": Broken(
        ["data.mini_rollout_batch_size=3"], "error: data.mini_rollout_batch_size", "3 does not divide"
    ),
    "too few batched tokens": Broken(
        ["worker.rollout.max_num_batched_tokens=600"],
        "error: worker.rollout.max_num_batched_tokens",
        "up to 1024 tokens",
    ),
    "short model length": Broken(["worker.rollout.max_model_len=600"], "error: worker.rollout.max_model_len", "1024"),
    "tensor parallel": Broken(
        ["worker.rollout.tensor_parallel_size=2"], "error: worker.rollout.tensor_parallel", "1 is right"
    ),
    "no n for validation": Broken(
        ["worker.rollout.val_override_config={temperature: 0}"], "error: worker.rollout.val_override_config", "n: 1"
    ),
    "sampled validation": Broken(
        ["worker.rollout.val_override_config={n: 1}"],
        "warning: worker.rollout.val_override_config",
        "temperature: 0.0",
    ),
    "KL on and off": Broken(
        ["algorithm.disable_kl=true", "algorithm.use_kl_loss=true"],
        "warning: algorithm.use_kl_loss",
        "it has no effect",
    ),
    "KL of weight zero": Broken(["algorithm.kl_coef=0"], "warning: algorithm.kl_coef", "disable_kl=true"),
    "empty filter": Broken(
        ["algorithm.online_filtering=true", "algorithm.filter_low=0.99"], "error: algorithm.filter_low", "less than"
    ),
    "LoRA on the vision tower": Broken(
        ["worker.actor.model.lora.rank=8"], "warning: worker.actor.model.lora", "visual"
    ),
    "mistyped sampling": Broken(
        ["worker.rollout.val_override_config={n: 1, temperature: 0.0, top_q: 0.9}"],
        "error: worker.rollout.val_override_config.top_q",
        "Did you mean top_",
    ),
    "ulysses": Broken(["worker.actor.ulysses_size=2"], "error: worker.actor.ulysses_size", "2 does not divide 1"),
    "ulysses with padding": Broken(
        ["worker.actor.ulysses_size=2", "trainer.n_gpus_per_node=2", "worker.actor.padding_free=false"],
        "error: worker.actor.padding_free",
        "it must be true",
    ),
    "shards": Broken(
        ["worker.actor.fsdp.fsdp_size=3", "trainer.n_gpus_per_node=4"],
        "error: worker.actor.fsdp.fsdp_size",
        "3 does not divide 4",
    ),
    "critic micro batch": Broken(
        ["algorithm.adv_estimator=gae", "worker.critic.micro_batch_size_per_device_for_experience=5"],
        "error: worker.critic.micro_batch_size_per_device_for_experience",
        "5 does not divide rollout_batch_size x n, 32",
    ),
    "experience micro batch of a GPU": Broken(
        [
            "trainer.n_gpus_per_node=4",
            "worker.actor.micro_batch_size_per_device_for_experience=16",
            "worker.actor.dynamic_batching=false",
        ],
        "error: worker.actor.micro_batch_size_per_device_for_experience",
        "16 does not divide 8, the samples per step on one GPU",
    ),
    "update that GPUs do not share": Broken(
        ["data.rollout_batch_size=12", "worker.actor.global_batch_size=3", "trainer.n_gpus_per_node=8"],
        "error: worker.actor.global_batch_size",
        "12 samples per update are not a multiple of 8 ranks",
    ),
    "unknown precision": Broken(
        ["worker.actor.fsdp.torch_dtype=bf"], "error: worker.actor.fsdp.torch_dtype", "bfloat16"
    ),
    "empty validation batch": Broken(
        ["data.val_batch_size=0"], "error: data.val_batch_size", "nor -1, which means all"
    ),
    "top_k": Broken(["worker.rollout.top_k=-2"], "error: worker.rollout.top_k", "at least -1"),
    "learning rate that falls too low": Broken(
        ["worker.actor.optim.min_lr_ratio=1.5"], "error: worker.actor.optim.min_lr_ratio", "between 0 and 1"
    ),
    "rank of LoRA": Broken(
        ["worker.actor.model.lora.rank=12"], "error: worker.actor.model.lora.rank", "one of 8, 16, 32"
    ),
    "heads of a published model": Broken(
        [
            "worker.actor.model.model_path=Qwen/Qwen2.5-VL-7B-Instruct",
            "worker.rollout.tensor_parallel_size=8",
            "trainer.n_gpus_per_node=8",
        ],
        "error: worker.rollout.tensor_parallel_size",
        "does not divide 28, the number of the model's attention heads",
    ),
    "heads of a model folder": Broken(
        ["worker.actor.model.model_path=!/small", "worker.actor.ulysses_size=2", "trainer.n_gpus_per_node=2"],
        "error: worker.actor.ulysses_size",
        "does not divide 3, the number of the model's attention heads",
        lambda f: model_config(f / "small", num_attention_heads=3, max_position_embeddings=600),
    ),
    "engine longer than the model's positions": Broken(
        ["worker.actor.model.model_path=!/small", "worker.rollout.max_model_len=2048"],
        "error: worker.rollout.max_model_len",
        "2048 tokens exceed the model's max_position_embeddings, 600",
        lambda f: model_config(f / "small", num_attention_heads=3, max_position_embeddings=600),
    ),
    "critic batch": Broken(
        ["algorithm.adv_estimator=gae", "worker.critic.global_batch_size=5"],
        "error: worker.critic.global_batch_size",
        "does not divide rollout_batch_size, 8",
    ),
    "adaptive KL without a horizon": Broken(
        ["algorithm.kl_type=adaptive", "algorithm.kl_horizon=0"], "error: algorithm.kl_horizon", "above zero"
    ),
    "warm-up ratio": Broken(["worker.actor.optim.lr_warmup_ratio=2"], "error: worker.actor.optim.lr_warmup", "0 to 1"),
    "logger is a word": Broken(["trainer.logger=console"], "error: trainer.logger", "tuple"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name, tmp_path, workshop, good_words, monkeypatch):
    assert_found(BROKEN[name], tmp_path, workshop, good_words, monkeypatch)


def test_a_good_config_gives_no_alarm(good_words):
    assert alarms(good_words) == []


@pytest.mark.parametrize(
    "word",
    [
        "worker.actor.fsdp.fsdp_size=2",  # as many shards as GPUs, or more, is what is done without the key
        "worker.actor.fsdp.torch_dtype=bfloat16",
        "worker.rollout.top_k=-1",
        "data.val_batch_size=-1",
        "worker.actor.micro_batch_size_per_device_for_experience=32",
    ],
)
def test_what_is_allowed_gives_no_alarm(word, good_words):
    assert alarms([*good_words, word]) == []


@pytest.mark.parametrize(
    "words",
    [
        ["worker.rollout.limit_images=0"],
        ["data.train_files=owner/data.v2", "worker.actor.model.model_path=owner/model-2.5.1"],
        ["data.train_files=owner/data@train"],
        ["trainer.val_only=true", "trainer.val_before_train=true", "worker.rollout.temperature=0"],
        ["worker.reward.reward_function=~/bools.py"],
        ["worker.reward.reward_function=~/float64.py"],
        ["data.train_files=owner/math", "worker.reward.reward_function=~/math.py"],
    ],
    ids=lambda words: words[-1],
)
def test_easyr1s_own_ways_of_working_give_no_alarm(words, tmp_path, good_words):
    scores = {
        "bools": "{'overall': float('yes' in r['response'].split()), 'said': 'yes' in r['response']}",
        "float64": "{'overall': numpy.float64('yes' in r['response'].split())}",
        "math": "{'overall': float(r['response'] == r['ground_truth'])}",
    }
    for name, score in scores.items():
        (tmp_path / f"{name}.py").write_text(f"import numpy\ndef main(rows):\n return [{score} for r in rows]")
    lines = alarms([*good_words, *[word.replace("~", str(tmp_path)) for word in words]], trainer=EASYR1)
    assert [line for line in lines if "the right answer" not in line] == []


def test_verl_rounds_the_rank_of_lora_up(good_words):
    words = [*good_words, "worker.actor.model.lora.rank=12", "worker.actor.model.lora.exclude_modules=.*visual.*"]
    for trainer, count in {"verl": 0, "easyr1": 1}.items():
        assert len(alarms(words, trainer=Trainer(trainer, "", Path()))) == count


@pytest.mark.parametrize("modules", ["all-linear", "q_proj,gate_proj", "down_proj", "qkv", "linear_fc1"])
def test_lora_that_reaches_the_vision_tower_is_found(modules, good_words):
    words = [*good_words, "worker.actor.model.lora.rank=8", f"worker.actor.model.lora.target_modules='{modules}'"]
    (line,) = alarms(words)
    assert line.startswith("warning: worker.actor.model.lora.exclude_modules: null, and the vision tower")
    assert alarms([*words, "worker.actor.model.lora.exclude_modules=.*visual.*"]) == []
    assert alarms([*words, "worker.actor.model.lora.target_modules='q_proj,v_proj'"]) == []


def test_kl_in_the_reward_is_noted_with_grpo_alone(good_words):
    def noted(*words: str) -> bool:
        return any("a full-strength advantage" in line for line in findings([*good_words, *words]))

    assert noted()
    for word in ("algorithm.use_kl_loss=true", "algorithm.disable_kl=true", "algorithm.adv_estimator=rloo"):
        assert not noted(word)


def test_verls_gspo_without_dual_clip_is_noted(good_words):
    words = [*good_words, "worker.actor.loss_type=gspo"]
    for trainer, count in {"verl": 1, "easyr1": 0}.items():
        lines = findings(words, trainer=Trainer(trainer, "", Path()))
        assert sum("verl's gspo does not clip at 3" in line for line in lines) == count


def test_what_verl_cannot_do_is_found_before_it_starts(good_words):
    words = [*good_words, "algorithm.online_filtering=true"]
    (line,) = alarms(words, trainer=Trainer("verl", "0.9.1", Path()))
    assert line.startswith("error: algorithm.online_filtering: verl has no counterpart to True")
    assert alarms(words, trainer=Trainer("easyr1", "", Path())) == []


@pytest.mark.parametrize("word", ["worker.reward.reward_function=null", "algorithm.adv_estimator=gpro"])
def test_what_no_trainer_takes_is_said_once(word, good_words):
    key = word.partition("=")[0]
    lines = alarms([*good_words, word], trainer=Trainer("verl", "0.9.1", Path()))
    assert [line.startswith(f"error: {key}: ") for line in lines] == [True]
