"""What a rehearsal changes of a config, and that it changes nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_reasoner.training.easyr1.config import load_config
from lad_rehearsal.rehearse.plan import PROMPTS, RESPONSE_TOKENS, scale_down

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples" / "grpo").glob("qwen*"))

#: What makes the run the user's: a rehearsal of another prompt, reward or loss would be none.
KEPT = (
    "data.prompt_key",
    "data.format_prompt",
    "data.min_pixels",
    "data.max_pixels",
    "data.max_prompt_length",
    "data.shuffle",
    "data.seed",
    "worker.rollout.n",
    "worker.rollout.temperature",
    "worker.rollout.limit_images",
    "worker.rollout.val_override_config",
    "worker.rollout.max_num_batched_tokens",
    "worker.actor.model.lora.rank",
    "worker.actor.model.freeze_vision_tower",
    "worker.actor.optim.lr",
    "worker.actor.optim.strategy",
    "worker.reward.reward_function",
    "worker.reward.reward_function_kwargs",
    "algorithm.use_kl_loss",
    "algorithm.kl_coef",
    "trainer.val_before_train",
    "trainer.save_model_only",
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_task_stays_and_every_change_is_listed(example):
    config = load_config([f"config={example}"])
    scaled, changes = scale_down(config, steps=2, paths={"data.train_files": "/x.parquet"})
    assert {key: scaled[key] for key in KEPT} == {key: config[key] for key in KEPT}
    differing = {key for key in config.values if config[key] != scaled[key]}
    assert differing == {change.key for change in changes}
    assert all(change.was == config[change.key] and change.now == scaled[change.key] for change in changes)
    assert all(change.why for change in changes)
    assert scaled["worker.rollout.dtype"] == scaled["worker.actor.fsdp.mp_param_dtype"] == "fp32"
    assert (scaled["trainer.nnodes"], scaled["trainer.n_gpus_per_node"], scaled["trainer.max_steps"]) == (1, 1, 2)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_vllm_gets_the_limits_of_the_gpu_run(example):
    config = load_config([f"config={example}"])
    scaled, changes = scale_down(config, steps=2, paths={}, engine="vllm")
    longest = config["data.max_prompt_length"] + config["data.max_response_length"]
    assert scaled["worker.rollout.max_model_len"] == (config["worker.rollout.max_model_len"] or longest)
    limits = ("max_num_batched_tokens", "enable_chunked_prefill", "limit_images")
    keys = [f"worker.rollout.{name}" for name in limits]
    assert {key: scaled[key] for key in keys} == {key: config[key] for key in keys}
    assert scaled["worker.rollout.enforce_eager"]
    assert all(change.why for change in changes)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)  # OmegaConf reads 190 keys each time
@given(
    updates=st.integers(1, 8),
    mini=st.integers(1, 64),
    n=st.integers(1, 16),
    micro=st.integers(1, 64),
    estimator=st.sampled_from(["grpo", "gae"]),
)
def test_small_batches_divide_as_the_trainers_ask(updates, mini, n, micro, estimator):
    words = [
        f"data.rollout_batch_size={updates * mini}",
        f"worker.rollout.n={n}",
        f"algorithm.adv_estimator={estimator}",
        *(
            f"worker.{role}.{name}"
            for role in ("actor", "critic")
            for name in (
                f"global_batch_size={mini}",
                f"micro_batch_size_per_device_for_update={micro}",
                f"micro_batch_size_per_device_for_experience={micro}",
            )
        ),
    ]
    scaled, _ = scale_down(load_config(words), steps=2, paths={})
    batch = scaled["data.rollout_batch_size"]
    assert 1 <= batch <= PROMPTS
    assert scaled["worker.rollout.n"] == n
    for role in ("actor", "critic") if estimator == "gae" else ("actor",):
        prompts = scaled[f"worker.{role}.global_batch_size"]
        assert batch % prompts == 0
        # A config that updates several times a step still does, where a step has prompts for it.
        assert (batch // prompts > 1) == (updates > 1 and batch > 1)
        for use in ("update", "experience"):
            size = scaled[f"worker.{role}.micro_batch_size_per_device_for_{use}"]
            assert prompts * n % size == 0
            assert size <= micro


def test_responses_are_cut_but_never_lengthened():
    short = load_config(["data.max_response_length=8"])
    long = load_config(["data.max_response_length=1024"])
    assert scale_down(short, steps=2, paths={})[0]["data.max_response_length"] == 8
    assert scale_down(long, steps=2, paths={})[0]["data.max_response_length"] == RESPONSE_TOKENS


def test_the_critic_is_left_alone_where_nobody_reads_it():
    _, changes = scale_down(load_config([]), steps=2, paths={})
    assert not [change.key for change in changes if change.key.startswith("worker.critic")]
