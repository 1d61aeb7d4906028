"""Values that contradict each other or that EasyR1 rejects only after loading everything."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from math import inf, isfinite
from typing import Final

from lad_reasoner.support.findings import Finding, error, note, warning
from lad_reasoner.training.preflight.context import Check, Known
from lad_reasoner.training.preflight.model_size import attention_heads, context_length

__all__ = ["ALGORITHM_CHECKS", "CHOICES"]

#: The values EasyR1 supports; it checks most of them long after the start.
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

#: EasyR1's names of the precisions.
PRECISIONS: Final = ("bf16", "bfloat16", "fp16", "float16", "fp32", "float32")

#: The ranks that vLLM has kernels for (its ``MaxLoRARanks``; releases before 0.12 lack 1). EasyR1 passes the rank
#: unchanged; verl rounds it up.
LORA_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)

#: Names in target_modules that match layers of the vision towers of Qwen2.5-VL and Qwen3-VL too.
VISION_MODULES: Final = frozenset(
    {"all-linear", "qkv", "proj", "gate_proj", "up_proj", "down_proj", "linear_fc1", "linear_fc2"}
)

#: vLLM's sampling parameters. EasyR1 silently ignores any other in val_override_config.
SAMPLING: Final = (
    *("n", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids", "bad_words", "ignore_eos"),
    *("max_tokens", "min_tokens", "presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs"),
    *("prompt_logprobs", "detokenize", "skip_special_tokens", "logit_bias", "include_stop_str_in_output"),
)

_MINI: Final = "worker.actor.global_batch_size"
_UPDATE: Final = "worker.actor.micro_batch_size_per_device_for_update"
_EXPERIENCE: Final = "worker.actor.micro_batch_size_per_device_for_experience"

#: The lowest and highest value of each key.
BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "data.max_prompt_length": (1, inf),
    "data.max_response_length": (1, inf),
    "data.rollout_batch_size": (1, inf),
    _MINI: (1, inf),
    _UPDATE: (1, inf),
    _EXPERIENCE: (1, inf),
    "worker.actor.clip_ratio_low": (0, 1),
    "worker.actor.clip_ratio_high": (0, 10),
    "worker.actor.ppo_epochs": (1, inf),
    "worker.actor.ulysses_size": (1, inf),
    "worker.actor.model.lora.rank": (0, inf),
    "worker.rollout.n": (1, inf),
    "worker.rollout.temperature": (0, 10),
    "worker.rollout.top_p": (1e-9, 1),
    "worker.rollout.top_k": (-1, inf),
    "worker.rollout.gpu_memory_utilization": (1e-9, 1),
    "worker.rollout.tensor_parallel_size": (1, inf),
    "algorithm.kl_coef": (0, inf),
    "worker.actor.optim.lr_warmup_ratio": (0, 1),
    "worker.rollout.limit_images": (0, inf),
    "trainer.nnodes": (1, inf),
    "trainer.n_gpus_per_node": (1, inf),
}


def check_choices(known: Known) -> Iterator[Finding]:
    """EasyR1 supports each name."""
    for key, names in CHOICES.items():
        if known[key] not in names:
            yield error(key, f"{known[key]!r} is not supported", remedy=f"Set it to {' or '.join(names)}")


def check_precisions(known: Known) -> Iterator[Finding]:
    """EasyR1 supports the precision of the weights, which it checks when the model is loaded."""
    for role in ("actor", "ref"):
        key = f"worker.{role}.fsdp.torch_dtype"
        if known[key] is not None and known[key] not in PRECISIONS:
            remedy = f"Set it to null or one of {', '.join(PRECISIONS)}"
            yield error(key, f"{known[key]!r} is not a precision", remedy=remedy)


def _iter_infinite(known: Known) -> Iterator[Finding]:
    for key, value in known.config.values.items():
        unclipped = key.endswith(".max_grad_norm") and value == inf
        if key not in BOUNDS and isinstance(value, float) and not isfinite(value) and not unclipped:
            yield error(key, f"{value} is not a finite number")


def check_bounds(known: Known) -> Iterator[Finding]:
    """Numbers are in range."""
    for key, (low, high) in BOUNDS.items():
        value = known[key]
        if not low <= value <= high or value == inf:
            allowed = f"at least {low:g}" if high == inf else f"{low:g} to {high:g}"
            yield error(key, f"{value} is out of range", remedy=f"Set it to {allowed}")
    yield from _iter_infinite(known)
    betas = known["worker.actor.optim.betas"]
    if not all(0 <= beta < 1 for beta in betas):
        yield error("worker.actor.optim.betas", f"{betas} are not both at least 0 and below 1")
    if (rate := known["worker.actor.optim.lr"]) <= 0:
        yield error("worker.actor.optim.lr", f"{rate} is not above zero")
    if (size := known["data.val_batch_size"]) < 1 and size != -1:
        yield error("data.val_batch_size", f"{size} is neither positive nor -1, which means all")
    if (ratio := known["worker.actor.optim.min_lr_ratio"]) is not None and not 0 <= ratio <= 1:
        yield error("worker.actor.optim.min_lr_ratio", f"{ratio} is not between 0 and 1")


def check_group(known: Known) -> Iterator[Finding]:
    """Relative advantages need several, different samples per prompt."""
    estimator, n = known["algorithm.adv_estimator"], known["worker.rollout.n"]
    if known["trainer.val_only"]:
        return
    if estimator in {"grpo", "grpo_passk", "rloo"} and n < 2:
        problem = f"{n} is too few: {estimator} needs at least 2 samples per prompt"
        yield error("worker.rollout.n", problem, remedy="8 is usual")
    elif known["worker.rollout.temperature"] == 0:
        problem = "0 makes all samples of a prompt equal, so none has an advantage"
        yield error("worker.rollout.temperature", problem, remedy="Set it to 1.0")


def check_batch_sizes(known: Known) -> Iterator[Finding]:
    """Batches divide into mini batches, micro batches and GPUs, by EasyR1's own rules."""
    prompts, mini = known["data.rollout_batch_size"], known[_MINI]
    n, world = known["worker.rollout.n"], known.world_size
    experience = known[_EXPERIENCE]
    if min(prompts, mini, n, world, experience, known["worker.actor.ulysses_size"]) < 1:
        return  # reported by check_bounds
    if prompts % mini:
        yield error("data.rollout_batch_size", f"{prompts} is not a multiple of {_MINI}, {mini}")
    if prompts * n % experience:
        yield error(_EXPERIENCE, f"{experience} does not divide rollout_batch_size x n, {prompts * n}")
    if prompts * n % world:
        yield error("trainer.n_gpus_per_node", f"{world} GPUs cannot share {prompts * n} samples per step equally")
    yield from _check_experience(known, prompts * n)
    yield from _check_update(known, mini * n)


def _check_experience(known: Known, samples: int) -> Iterator[Finding]:
    """Each GPU's part of a step divides into micro batches, unless these are cut by tokens."""
    micro = known[_EXPERIENCE]
    ranks = max(known.world_size // known["worker.actor.ulysses_size"], 1)
    if samples % micro or samples % ranks or known["worker.actor.dynamic_batching"]:
        return  # reported above, or nothing to divide
    if samples // ranks % micro:
        problem = f"{micro} does not divide {samples // ranks}, the samples per step on one GPU"
        yield error(_EXPERIENCE, problem, remedy="Change it, or set worker.actor.dynamic_batching=true")


def _check_update(known: Known, samples: int) -> Iterator[Finding]:
    micro, offload = known[_UPDATE], "worker.actor.fsdp.enable_cpu_offload"
    ranks = known.world_size // known["worker.actor.ulysses_size"]
    per_device = samples // ranks if ranks else 0
    if not per_device:
        yield error(_MINI, f"{samples} samples are fewer than {ranks} ranks")
    elif samples % ranks:
        yield error(_MINI, f"{samples} samples per update are not a multiple of {ranks} ranks")
    elif micro >= 1 and per_device % micro:
        yield error(_UPDATE, f"{micro} does not divide {per_device}, the samples per update on one GPU")
    elif known[offload] and per_device != micro:
        remedy = "Use worker.actor.offload.offload_params instead"
        yield error(offload, "it does not work with gradient accumulation", remedy=remedy)


def check_critic(known: Known) -> Iterator[Finding]:
    """The batches of the critic, which only gae has, divide like the actor's."""
    if known["algorithm.adv_estimator"] != "gae":
        return
    prompts, size = known["data.rollout_batch_size"], known["worker.critic.global_batch_size"]
    if size < 1 or prompts % size:
        yield error("worker.critic.global_batch_size", f"{size} does not divide rollout_batch_size, {prompts}")
    key, samples = "worker.critic.micro_batch_size_per_device_for_experience", prompts * known["worker.rollout.n"]
    if known[key] < 1 or samples % known[key]:
        yield error(key, f"{known[key]} does not divide rollout_batch_size x n, {samples}")


def check_mini_rollouts(known: Known) -> Iterator[Finding]:
    """A step is generated in whole parts."""
    part, prompts = known["data.mini_rollout_batch_size"], known["data.rollout_batch_size"]
    if part is not None and (part < 1 or prompts % part):
        yield error("data.mini_rollout_batch_size", f"{part} does not divide rollout_batch_size, {prompts}")


def check_lengths(known: Known) -> Iterator[Finding]:
    """The rollout engine has room for prompt and response."""
    total = known["data.max_prompt_length"] + known["data.max_response_length"]
    for key in ("worker.rollout.max_num_batched_tokens", "worker.rollout.max_model_len"):
        if known[key] is not None and known[key] < total:
            yield error(key, f"{known[key]} is too small: prompt and response together have up to {total} tokens")
    length, most = known["worker.rollout.max_model_len"] or total, context_length(known)
    if most is not None and length > most:
        key = "worker.rollout.max_model_len" if known["worker.rollout.max_model_len"] else "data.max_response_length"
        yield error(key, f"{length} tokens exceed the model's max_position_embeddings, {most}")


def check_parallelism(known: Known) -> Iterator[Finding]:
    """GPUs divide into tensor-parallel groups."""
    size = known["worker.rollout.tensor_parallel_size"]
    if size > known.world_size or (size > 0 and known.world_size % size):
        problem = f"{size} does not divide {known.world_size}, the number of GPUs"
        yield error("worker.rollout.tensor_parallel_size", problem, remedy="1 is right for models up to 7B")
    for key in ("worker.actor.ulysses_size", "worker.actor.fsdp.fsdp_size", "worker.ref.fsdp.fsdp_size"):
        size = known[key]
        # As many shards as GPUs, or more, is the default.
        if size > 1 and known.world_size % size and (key.endswith("ulysses_size") or size < known.world_size):
            yield error(key, f"{size} does not divide {known.world_size}, the number of GPUs")
    if known["worker.actor.ulysses_size"] > 1 and not known["worker.actor.padding_free"]:
        yield error("worker.actor.padding_free", "it must be true with ulysses_size above 1")


def check_heads(known: Known) -> Iterator[Finding]:
    """Attention heads divide among the GPUs that share a sequence or a model; both fail only once it is loaded."""
    heads = attention_heads(known)
    for key in ("worker.rollout.tensor_parallel_size", "worker.actor.ulysses_size"):
        if heads is not None and known[key] > 1 and heads % known[key]:
            yield error(key, f"{known[key]} does not divide {heads}, the number of the model's attention heads")


def check_validation_sampling(known: Known) -> Iterator[Finding]:
    """Validation sets its own number of samples: without n, it would use the number of training."""
    key, own = "worker.rollout.val_override_config", known["worker.rollout.val_override_config"]
    if "n" not in own and known["worker.rollout.n"] > 1:
        yield error(key, "n is missing, and EasyR1 stops at its first validation without it", remedy="Add n: 1")
    for name in own:
        if name not in SAMPLING:
            near = next(iter(get_close_matches(name, SAMPLING, n=1)), "")
            remedy = f"Did you mean {near}?" if near else "EasyR1 would silently ignore it"
            yield error(f"{key}.{name}", "vLLM has no such sampling parameter", remedy=remedy)
    if "temperature" not in own:
        problem = "temperature is missing, so validation samples its responses"
        yield warning(key, problem, remedy="Add temperature: 0.0")


def check_kl(known: Known) -> Iterator[Finding]:
    """The KL keys do not contradict each other."""
    if known["algorithm.disable_kl"] and known["algorithm.use_kl_loss"]:
        problem = "it has no effect with algorithm.disable_kl=true"
        yield warning("algorithm.use_kl_loss", problem, remedy="Set only one of them")
    if known["algorithm.kl_type"] == "adaptive" and known["algorithm.kl_horizon"] <= 0:
        yield error("algorithm.kl_horizon", f"{known['algorithm.kl_horizon']} is not above zero, as adaptive KL needs")
    if not known["algorithm.disable_kl"] and known["algorithm.kl_coef"] == 0:
        remedy = "Set algorithm.disable_kl=true"
        yield warning("algorithm.kl_coef", "0 runs the reference model for nothing", remedy=remedy)


def check_kl_in_reward(known: Known) -> Iterator[Finding]:
    """With KL in the reward, the estimator should not divide by the group's spread."""
    in_reward = not known["algorithm.disable_kl"] and not known["algorithm.use_kl_loss"]
    if in_reward and known["algorithm.kl_coef"] > 0 and known["algorithm.adv_estimator"] in {"grpo", "grpo_passk"}:
        yield note(
            "algorithm.use_kl_loss",
            "KL in the reward (equation 7): in a group whose rewards are all equal only the KL term differs, and "
            "GRPO's division by the spread makes it a full-strength advantage, whatever kl_coef is",
            remedy="With adv_estimator=rloo nothing is divided; use_kl_loss=true keeps KL out of the reward",
        )


def check_verl_differences(known: Known) -> Iterator[Finding]:
    """Values that mean something else to verl and cannot be translated."""
    if known.trains_with("verl") and known["worker.actor.loss_type"] == "gspo":
        dual = known["worker.actor.clip_ratio_dual"]
        yield note("worker.actor.clip_ratio_dual", f"verl's gspo does not clip at {dual:g}; EasyR1's does")


def check_online_filtering(known: Known) -> Iterator[Finding]:
    """The bounds of the filter leave some prompts."""
    if known["algorithm.online_filtering"] and known["algorithm.filter_low"] >= known["algorithm.filter_high"]:
        yield error("algorithm.filter_low", f"{known['algorithm.filter_low']} is not less than algorithm.filter_high")


def check_lora(known: Known) -> Iterator[Finding]:
    """The rollout engine can load the adapters: of this rank, and none of the vision tower."""
    lora = "worker.actor.model.lora"
    rank, with_verl = known[f"{lora}.rank"], known.trains_with("verl")
    if rank > max(LORA_RANKS) or (rank > 0 and rank not in LORA_RANKS and not with_verl):
        allowed = f"at most {max(LORA_RANKS)}" if with_verl else f"one of {', '.join(map(str, LORA_RANKS))}"
        yield error(f"{lora}.rank", f"vLLM has no kernel for rank {rank}", remedy=f"Use {allowed}")
    named = {name.strip() for name in str(known[f"{lora}.target_modules"]).split(",")}
    if rank > 0 and (vision := sorted(named & VISION_MODULES)) and known[f"{lora}.exclude_modules"] is None:
        problem = f"null, and the vision tower has modules named {', '.join(vision)}"
        remedy = "Set it to .*visual.*: vLLM has no adapters for the vision tower"
        yield warning(f"{lora}.exclude_modules", problem, remedy=remedy)


ALGORITHM_CHECKS: Final[tuple[Check, ...]] = (
    check_choices,
    check_precisions,
    check_bounds,
    check_group,
    check_batch_sizes,
    check_critic,
    check_mini_rollouts,
    check_lengths,
    check_parallelism,
    check_heads,
    check_validation_sampling,
    check_kl,
    check_kl_in_reward,
    check_verl_differences,
    check_online_filtering,
    check_lora,
)
