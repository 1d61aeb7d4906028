"""Values that contradict each other or that EasyR1 would refuse once everything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Final

from lad_reasoner.trainers.checks.known import Finding, Known, error, warning

__all__ = ["ALGORITHM_CHECKS"]

#: Keys of which EasyR1 knows only these values; it looks at most of them long after the start.
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "algorithm.adv_estimator": ("grpo", "grpo_passk", "rloo", "reinforce_plus_plus", "remax", "gae"),
    "algorithm.kl_penalty": ("kl", "abs", "mse", "low_var_kl", "full"),
    "algorithm.kl_type": ("fixed", "adaptive"),
    "worker.actor.loss_avg_mode": ("token", "seq"),
    "worker.actor.loss_type": ("default", "gspo", "gspo_token", "cispo", "sapo"),
    "worker.actor.strategy": ("fsdp",),
    "worker.actor.optim.strategy": ("adamw", "adamw_bf16"),
    "worker.actor.optim.lr_scheduler_type": ("constant", "cosine"),
    "worker.rollout.name": ("vllm",),
    "worker.rollout.dtype": ("bf16", "fp16", "fp32"),
    **{
        f"worker.{role}.fsdp.mp_{kind}_dtype": ("bf16", "fp16", "fp32")
        for role in ("actor", "ref")
        for kind in ("param", "reduce", "buffer")
    },
}

#: vLLM's sampling parameters. EasyR1 silently ignores any other in val_override_config.
SAMPLING: Final = (
    *("n", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids", "bad_words", "ignore_eos"),
    *("max_tokens", "min_tokens", "presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs"),
    *("prompt_logprobs", "detokenize", "skip_special_tokens", "logit_bias", "include_stop_str_in_output"),
)

#: Keys and the bounds that they must keep: lowest, highest.
BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "data.max_prompt_length": (1, float("inf")),
    "data.max_response_length": (1, float("inf")),
    "data.rollout_batch_size": (1, float("inf")),
    "worker.actor.global_batch_size": (1, float("inf")),
    "worker.actor.micro_batch_size_per_device_for_update": (1, float("inf")),
    "worker.actor.micro_batch_size_per_device_for_experience": (1, float("inf")),
    "worker.actor.clip_ratio_low": (0, 1),
    "worker.actor.clip_ratio_high": (0, 10),
    "worker.actor.ppo_epochs": (1, float("inf")),
    "worker.actor.ulysses_size": (1, float("inf")),
    "worker.actor.model.lora.rank": (0, float("inf")),
    "worker.rollout.n": (1, float("inf")),
    "worker.rollout.temperature": (0, 10),
    "worker.rollout.top_p": (1e-9, 1),
    "worker.rollout.gpu_memory_utilization": (1e-9, 1),
    "worker.rollout.tensor_parallel_size": (1, float("inf")),
    "algorithm.kl_coef": (0, float("inf")),
    "worker.actor.optim.lr_warmup_ratio": (0, 1),
    "worker.rollout.limit_images": (0, float("inf")),
    "trainer.nnodes": (1, float("inf")),
    "trainer.n_gpus_per_node": (1, float("inf")),
}


def check_choices(known: Known) -> Iterator[Finding]:
    """Names are ones that EasyR1 knows."""
    for key, names in CHOICES.items():
        if known[key] not in names:
            yield error(key, repr(known[key]), expected=" or ".join(names))


def check_bounds(known: Known) -> Iterator[Finding]:
    """Numbers are possible ones."""
    for key, (low, high) in BOUNDS.items():
        value = known[key]
        if not low <= value <= high:
            expected = f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
            yield error(key, str(value), expected=expected)
    if known["worker.actor.optim.lr"] <= 0:
        yield error("worker.actor.optim.lr", str(known["worker.actor.optim.lr"]), expected="above zero")


def check_group(known: Known) -> Iterator[Finding]:
    """Relative advantages need several, different samples a prompt."""
    estimator, n = known["algorithm.adv_estimator"], known["worker.rollout.n"]
    if estimator in {"grpo", "grpo_passk", "rloo"} and n < 2:
        yield error("worker.rollout.n", str(n), expected=f"at least 2 with {estimator}", remedy="8 is usual")
    elif known["worker.rollout.temperature"] == 0:
        yield error(
            "worker.rollout.temperature", "0", expected="above zero: equal samples have no advantage", remedy="1.0"
        )


def check_batch_sizes(known: Known) -> Iterator[Finding]:
    """Batches divide into mini batches, micro batches and GPUs, by EasyR1's own rules."""
    prompts, mini = known["data.rollout_batch_size"], known["worker.actor.global_batch_size"]
    n, world = known["worker.rollout.n"], known.world_size
    experience = known["worker.actor.micro_batch_size_per_device_for_experience"]
    if min(prompts, mini, n, world, experience, known["worker.actor.ulysses_size"]) < 1:
        return  # said by check_bounds
    if prompts % mini:
        yield error("data.rollout_batch_size", str(prompts), expected=f"a multiple of global_batch_size, {mini}")
    if prompts * n % experience:
        yield error(
            "worker.actor.micro_batch_size_per_device_for_experience",
            str(experience),
            expected=f"a divisor of rollout_batch_size x n, {prompts * n}",
        )
    if prompts * n % world:
        yield error("trainer.n_gpus_per_node", f"{world} GPUs", expected=f"a divisor of {prompts * n} samples a step")
    yield from _check_update(known, mini * n)


def _check_update(known: Known, samples: int) -> Iterator[Finding]:
    micro = known["worker.actor.micro_batch_size_per_device_for_update"]
    ranks = known.world_size // known["worker.actor.ulysses_size"]
    per_device = samples // ranks if ranks else 0
    if not per_device:
        yield error("worker.actor.global_batch_size", f"{samples} samples", expected=f"at least one for {ranks} ranks")
    elif micro >= 1 and per_device % micro:
        yield error(
            "worker.actor.micro_batch_size_per_device_for_update",
            str(micro),
            expected=f"a divisor of {per_device}, the samples of an update on one GPU",
        )
    elif known["worker.actor.fsdp.enable_cpu_offload"] and per_device != micro:
        yield error(
            "worker.actor.fsdp.enable_cpu_offload",
            "true with gradient accumulation",
            remedy="use worker.actor.offload.offload_params instead",
        )


def check_critic(known: Known) -> Iterator[Finding]:
    """The critic's batches, which only gae has, divide as the actor's do."""
    if known["algorithm.adv_estimator"] != "gae":
        return
    prompts, size = known["data.rollout_batch_size"], known["worker.critic.global_batch_size"]
    if size < 1 or prompts % size:
        yield error(
            "worker.critic.global_batch_size", str(size), expected=f"a divisor of rollout_batch_size, {prompts}"
        )


def check_mini_rollouts(known: Known) -> Iterator[Finding]:
    """A step is generated in whole parts."""
    part, prompts = known["data.mini_rollout_batch_size"], known["data.rollout_batch_size"]
    if part is not None and (part < 1 or prompts % part):
        yield error("data.mini_rollout_batch_size", str(part), expected=f"a divisor of rollout_batch_size, {prompts}")


def check_lengths(known: Known) -> Iterator[Finding]:
    """The rollout engine has room for prompt and response."""
    total = known["data.max_prompt_length"] + known["data.max_response_length"]
    for key in ("worker.rollout.max_num_batched_tokens", "worker.rollout.max_model_len"):
        if known[key] is not None and known[key] < total:
            yield error(key, str(known[key]), expected=f"at least {total}, prompt and response together")


def check_parallelism(known: Known) -> Iterator[Finding]:
    """GPUs divide into tensor-parallel groups."""
    size = known["worker.rollout.tensor_parallel_size"]
    if size > known.world_size or (size > 0 and known.world_size % size):
        yield error(
            "worker.rollout.tensor_parallel_size",
            str(size),
            expected=f"a divisor of {known.world_size}, the number of GPUs",
            remedy="1 is right for models up to 7B",
        )
    for key in ("worker.actor.ulysses_size", "worker.actor.fsdp.fsdp_size", "worker.ref.fsdp.fsdp_size"):
        size = known[key]
        if size > 1 and known.world_size % size:
            yield error(key, str(size), expected=f"a divisor of {known.world_size}, the number of GPUs")
    if known["worker.actor.ulysses_size"] > 1 and not known["worker.actor.padding_free"]:
        yield error("worker.actor.padding_free", "false with ulysses_size above 1", remedy="set it to true")


def check_validation_sampling(known: Known) -> Iterator[Finding]:
    """Validation says how many samples it draws: without n, the training's number meets single prompts."""
    key, own = "worker.rollout.val_override_config", known["worker.rollout.val_override_config"]
    if "n" not in own and known["worker.rollout.n"] > 1:
        yield error(key, "no n", expected="n: 1", remedy="add it: EasyR1 stops at its first validation otherwise")
    for name in own:
        if name not in SAMPLING:
            near = next(iter(get_close_matches(name, SAMPLING, n=1)), "")
            remedy = f"did you mean {near}?" if near else "EasyR1 would silently ignore it"
            yield error(f"{key}.{name}", "no sampling parameter of vLLM", remedy=remedy)
    if "temperature" not in own:
        yield warning(key, "no temperature", expected="temperature: 0.0", remedy="validation would be sampled")


def check_kl(known: Known) -> Iterator[Finding]:
    """The KL keys do not contradict each other."""
    if known["algorithm.disable_kl"] and known["algorithm.use_kl_loss"]:
        yield warning("algorithm.use_kl_loss", "true with disable_kl=true", remedy="no KL is applied: set one of them")
    if known["algorithm.kl_type"] == "adaptive" and known["algorithm.kl_horizon"] <= 0:
        yield error("algorithm.kl_horizon", str(known["algorithm.kl_horizon"]), expected="above zero with adaptive")
    if not known["algorithm.disable_kl"] and known["algorithm.kl_coef"] == 0:
        yield warning("algorithm.kl_coef", "0", remedy="the reference model is run for nothing: set disable_kl=true")


def check_online_filtering(known: Known) -> Iterator[Finding]:
    """The bounds of the filter leave something."""
    if known["algorithm.online_filtering"] and known["algorithm.filter_low"] >= known["algorithm.filter_high"]:
        yield error(
            "algorithm.filter_low", str(known["algorithm.filter_low"]), expected="less than algorithm.filter_high"
        )


def check_lora(known: Known) -> Iterator[Finding]:
    """Adapters stay off the vision tower, which the rollout engine cannot load them for."""
    lora = "worker.actor.model.lora"
    everything = known[f"{lora}.target_modules"] == "all-linear" and known[f"{lora}.exclude_modules"] is None
    if known[f"{lora}.rank"] > 0 and everything:
        yield warning(
            f"{lora}.exclude_modules",
            "none with target_modules=all-linear",
            remedy="set it to .*visual.*: vLLM has no adapters for the vision tower",
        )


ALGORITHM_CHECKS: Final[tuple[Callable[[Known], Iterator[Finding]], ...]] = (
    check_choices,
    check_bounds,
    check_group,
    check_batch_sizes,
    check_critic,
    check_mini_rollouts,
    check_lengths,
    check_parallelism,
    check_validation_sampling,
    check_kl,
    check_online_filtering,
    check_lora,
)
