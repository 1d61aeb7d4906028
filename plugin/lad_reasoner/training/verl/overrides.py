"""EasyR1's config in verl's words, key by key.

Every key of EasyR1 stands in exactly one of three tables: RULES (translated), HARMLESS (has no counterpart, and
nothing changes without it) and REFUSED (has no counterpart, and only the default is accepted). A contract test holds
the tables against EasyR1's keys and verl's own configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from lad_reasoner.support.errors import UsageError
from lad_reasoner.training.easyr1.config import EasyR1Config

__all__ = ["EXTERNAL_LIB", "HARMLESS", "REFUSED", "RULES", "SAVE_CONTENTS", "translate"]

ACTOR: Final = "actor_rollout_ref.actor"
REF: Final = "actor_rollout_ref.ref"
ROLLOUT: Final = "actor_rollout_ref.rollout"
MODEL: Final = "actor_rollout_ref.model"

_OPTIM: Final = "worker.actor.optim"
_UPDATE: Final = "worker.actor.micro_batch_size_per_device_for_update"
_EXPERIENCE: Final = "worker.actor.micro_batch_size_per_device_for_experience"

#: EasyR1 always saves its last step; verl does so only if a frequency is set: one that no step count reaches.
LAST_STEP_ONLY: Final = 1_000_000_000

#: verl imports this module in each of its processes, after the model's config is read.
EXTERNAL_LIB: Final = f"{MODEL}.external_lib"
FROZEN_VISION: Final = "lad_reasoner.training.verl.frozen_vision"

#: What verl writes into a checkpoint.
SAVE_CONTENTS: Final = f"{ACTOR}.checkpoint.save_contents"

Overrides = dict[str, object]


@dataclass(frozen=True, slots=True)
class Rule:
    """EasyR1 keys that are translated together.

    Attributes:
        keys: The EasyR1 keys.
        translate: From the whole config to verl's overrides; a name that opens with ``++`` is new to verl.
    """

    keys: tuple[str, ...]
    translate: Callable[[EasyR1Config], Overrides]


def _to(key: str, *targets: str, by: Callable[[Any], object] = lambda value: value) -> Rule:
    """The common rule: one key, the same value (or a function of it) under verl's name(s)."""
    return Rule((key,), lambda config: dict.fromkeys(targets, by(config[key])))


def _same(source: str, target: str, *names: str) -> Iterator[Rule]:
    """Keys that keep their value and their last name: ``source.name`` becomes ``target.name``."""
    return (_to(f"{source}.{name}", f"{target}.{name}") for name in names)


def _choice(key: str, target: str, **names: str) -> Rule:
    """A key of a few known values, each with verl's name for it."""
    return Rule((key,), lambda config: {target: _verl_name(config, key, names)})


def _keys(group: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{group}.{name}" for name in names)


def _unchanged(*names: str) -> dict[str, str]:
    """Values that have the same name in verl."""
    return {name: name for name in names}


def _verl_name(config: EasyR1Config, key: str, names: Mapping[str, str]) -> str:
    """Return verl's name for the value of a key.

    Raises:
        UsageError: verl has no such value.
    """
    if (value := str(config[key])) not in names:
        raise UsageError(f"verl has no {value!r}, only {', '.join(names)}", where=key)
    return names[value]


def _files(value: str) -> object:
    """A parquet path; EasyR1's ``@train`` is what a file holds anyway."""
    path, _, split = value.partition("@")
    if split not in {"", "train"}:
        raise UsageError(f"verl reads whole files, so it cannot read the split {split}", where=value)
    return path


def _steps(config: EasyR1Config) -> Overrides:
    # EasyR1 ignores the epochs when max_steps is given; verl stops at whichever comes first, and an epoch has a step.
    epochs, steps = config["trainer.total_epochs"], config["trainer.max_steps"]
    return {"trainer.total_epochs": max(epochs, steps or 0), "trainer.total_training_steps": steps}


def _media(images: int) -> dict[str, int]:
    # verl's own limit_images does not exclude videos, which vLLM would then reserve memory for. 0 images: no limit.
    return {**({"image": images} if images else {}), "video": 0}


def _max_length(config: EasyR1Config) -> int:
    """Return the tokens of the longest prompt and response together."""
    return int(config["data.max_prompt_length"] + config["data.max_response_length"])


def _batching(config: EasyR1Config) -> Overrides:
    # EasyR1 states a micro batch in samples, and its token budget as that many samples of full length. verl multiplies
    # the budget by the ranks that share a sequence.
    length, ranks = _max_length(config), config["worker.actor.ulysses_size"]
    overrides: Overrides = {f"{ACTOR}.use_dynamic_bsz": config["worker.actor.dynamic_batching"]}
    for work, key in (
        (f"{ACTOR}.ppo", _UPDATE),
        (f"{REF}.log_prob", _EXPERIENCE),
        (f"{ROLLOUT}.log_prob", _EXPERIENCE),
    ):
        overrides[f"{work}_micro_batch_size_per_gpu"] = config[key]
        overrides[f"{work}_max_token_len_per_gpu"] = -(-config[key] * length // ranks)
    return overrides


def _loss(config: EasyR1Config) -> Overrides:
    losses = {"default": "vanilla", "gspo": "gspo", "cispo": "cispo", "sapo": "sapo"}
    modes = {"token": "token-mean", "seq": "seq-mean-token-mean"}
    loss = _verl_name(config, "worker.actor.loss_type", losses)
    mode = _verl_name(config, "worker.actor.loss_avg_mode", modes)
    if loss == "sapo" and mode != modes["seq"]:
        problem = "verl averages sapo over sequences, whatever is set"
        raise UsageError(problem, where="worker.actor.loss_avg_mode", remedy="Set it to seq, or train with EasyR1")
    return {f"{ACTOR}.policy_loss.loss_mode": loss, f"{ACTOR}.loss_agg_mode": mode}


def _warmup(config: EasyR1Config) -> Overrides:
    # verl falls back to the ratio unless the steps are positive; in EasyR1 the steps count whenever they are given.
    steps, ratio = config[f"{_OPTIM}.lr_warmup_steps"], config[f"{_OPTIM}.lr_warmup_ratio"]
    given = steps is not None
    return {
        f"{ACTOR}.optim.lr_warmup_steps": steps if given else -1,
        f"{ACTOR}.optim.lr_warmup_steps_ratio": 0.0 if given else ratio,
    }


def _freeze(config: EasyR1Config) -> Overrides:
    # FSDP shards frozen and trained weights together only if the original parameters are kept.
    if not config["worker.actor.model.freeze_vision_tower"]:
        return {}
    return {EXTERNAL_LIB: FROZEN_VISION, f"{ACTOR}.fsdp_config.use_orig_params": True}


def _kl(config: EasyR1Config) -> Overrides:
    """One coefficient and one estimator serve two places in EasyR1: the reward (eq. 7) or the loss."""
    on, in_loss = not config["algorithm.disable_kl"], config["algorithm.use_kl_loss"]
    penalty, coefficient = config["algorithm.kl_penalty"], config["algorithm.kl_coef"]
    if on:
        _verl_name(config, "algorithm.kl_penalty", _unchanged("kl", "abs", "mse", "low_var_kl"))
    return {
        "algorithm.use_kl_in_reward": on and not in_loss,
        "algorithm.kl_penalty": penalty,
        "algorithm.kl_ctrl.type": config["algorithm.kl_type"],
        "algorithm.kl_ctrl.kl_coef": coefficient,
        "algorithm.kl_ctrl.horizon": config["algorithm.kl_horizon"],
        "algorithm.kl_ctrl.target_kl": config["algorithm.kl_target"],
        f"{ACTOR}.use_kl_loss": on and in_loss,
        f"{ACTOR}.kl_loss_coef": coefficient,
        f"{ACTOR}.kl_loss_type": penalty,
    }


_REWARD_KEYS: Final = _keys("worker.reward", "reward_function", "reward_function_kwargs", "skip_special_tokens")


def _reward(config: EasyR1Config) -> Overrides:
    if config["worker.reward.reward_function"] is None:
        raise UsageError("a reward is needed, as path.py:function", where="worker.reward.reward_function")
    options = {key.rpartition(".")[2]: config[key] for key in _REWARD_KEYS}
    return {
        "reward.reward_manager.source": "importlib",
        "reward.reward_manager.name": "EasyR1RewardManager",
        "reward.reward_manager.module.path": "pkg://lad_reasoner.training.verl.reward_manager",
        "++reward.custom_reward_function.reward_kwargs": options,
    }


def _validation_sampling(config: EasyR1Config) -> Overrides:
    """EasyR1 validates with its training samples' parameters, but for what val_override_config says."""
    own = dict(config["worker.rollout.val_override_config"])
    known = ("temperature", "top_p", "top_k", "n")
    if strangers := sorted(set(own) - set(known)):
        where = f"worker.rollout.val_override_config.{strangers[0]}"
        raise UsageError(f"verl cannot set it for validation, only {', '.join(known)}", where=where)
    used = {name: own.get(name, config[f"worker.rollout.{name}"]) for name in known}
    return {
        **{f"{ROLLOUT}.val_kwargs.{name}": value for name, value in used.items()},
        f"{ROLLOUT}.val_kwargs.do_sample": used["temperature"] > 0,
    }


def _lora(config: EasyR1Config) -> Overrides:
    lora = "worker.actor.model.lora"
    words = config[f"{lora}.target_modules"].strip()
    modules = [name.strip() for name in words.split(",") if name.strip()]
    overrides: Overrides = {
        f"{MODEL}.lora_rank": config[f"{lora}.rank"],
        f"{MODEL}.lora_alpha": config[f"{lora}.alpha"],
        f"{MODEL}.target_modules": words if words == "all-linear" else modules,
        f"{MODEL}.exclude_modules": config[f"{lora}.exclude_modules"],
    }
    if config[f"{lora}.rank"] > 0:
        if config["worker.actor.fsdp.torch_dtype"] is None:
            problem = "null with LoRA: EasyR1 then keeps the base in bf16 and the adapter in fp32, which verl cannot"
            remedy = "Set it to bf16 or fp32"
            raise UsageError(problem, where="worker.actor.fsdp.torch_dtype", remedy=remedy)
        overrides[f"{ROLLOUT}.load_format"] = "safetensors"  # the engine gets only the adapter from the trainer
    return overrides


def _fsdp(role: str, target: str, default_dtype: str) -> Rule:
    """The FSDP keys of the actor or the reference model."""
    source, place = f"worker.{role}.fsdp", f"{target}.fsdp_config"
    names = ("enable_full_shard", "use_orig_params", "fsdp_size", "torch_dtype")
    precisions = ("mp_param_dtype", "mp_reduce_dtype", "mp_buffer_dtype")

    def translate(config: EasyR1Config) -> Overrides:
        return {
            f"{place}.reshard_after_forward": config[f"{source}.enable_full_shard"],
            f"{place}.use_orig_params": config[f"{source}.use_orig_params"],
            f"{place}.fsdp_size": config[f"{source}.fsdp_size"],
            f"{place}.model_dtype": config[f"{source}.torch_dtype"] or default_dtype,
            f"++{place}.mixed_precision": {
                name.removeprefix("mp_"): config[f"{source}.{name}"] for name in precisions
            },
        }

    return Rule(_keys(source, *names, *precisions), translate)


def _resume(config: EasyR1Config) -> Overrides:
    if (path := config["trainer.load_checkpoint_path"]) is not None:
        return {"trainer.resume_mode": "resume_path", "trainer.resume_from_path": path}
    return {"trainer.resume_mode": "auto" if config["trainer.find_last_checkpoint"] else "disable"}


def _chat_template(path: str | None) -> object:
    return None if path is None else Path(path).read_text(encoding="utf-8")


RULES: Final[tuple[Rule, ...]] = (
    # Data: read by our dataset class, which prepares rows as EasyR1 does.
    _to("data.train_files", "data.train_files", by=_files),
    _to("data.val_files", "data.val_files", by=_files),
    *_same("data", "data", "prompt_key", "image_key", "max_prompt_length", "max_response_length", "shuffle", "seed"),
    *_same("data", "data", "filter_overlong_prompts", "filter_overlong_prompts_workers"),
    *_same("data", "++data", "image_dir", "format_prompt", "min_pixels", "max_pixels"),
    _to("data.rollout_batch_size", "data.train_batch_size"),
    _to("data.mini_rollout_batch_size", "data.gen_batch_size"),
    _to("data.val_batch_size", "data.val_batch_size", by=lambda size: None if size == -1 else size),
    _to("data.override_chat_template", f"{MODEL}.custom_chat_template", by=_chat_template),
    # Actor. Both trainers count global_batch_size in prompts and multiply it by n themselves.
    _to("worker.actor.global_batch_size", f"{ACTOR}.ppo_mini_batch_size"),
    Rule((_UPDATE, _EXPERIENCE, "worker.actor.dynamic_batching"), _batching),
    _to("worker.actor.max_grad_norm", f"{ACTOR}.optim.clip_grad"),
    *_same("worker.actor", ACTOR, "clip_ratio_high", "ppo_epochs"),
    _to("worker.actor.clip_ratio_low", f"{ACTOR}.clip_ratio", f"{ACTOR}.clip_ratio_low"),
    _to("worker.actor.clip_ratio_dual", f"{ACTOR}.clip_ratio_c"),
    Rule(_keys("worker.actor", "loss_type", "loss_avg_mode"), _loss),
    _to("worker.actor.padding_free", f"{MODEL}.use_remove_padding"),
    _to("worker.actor.ulysses_size", f"{ACTOR}.ulysses_sequence_parallel_size"),
    _to("worker.actor.use_torch_compile", f"{ACTOR}.use_torch_compile", f"{ACTOR}.fsdp_config.use_torch_compile"),
    _to("worker.actor.tau_positive", f"{ACTOR}.tau_pos"),
    _to("worker.actor.tau_negative", f"{ACTOR}.tau_neg"),
    # Model.
    _to("worker.actor.model.model_path", f"{MODEL}.path"),
    *_same("worker.actor.model", MODEL, "tokenizer_path", "enable_gradient_checkpointing"),
    _to("worker.actor.model.override_config", f"++{MODEL}.override_config"),
    _to("worker.actor.model.trust_remote_code", f"{MODEL}.trust_remote_code", "data.trust_remote_code"),
    Rule(_keys("worker.actor.model.lora", "rank", "alpha", "target_modules", "exclude_modules"), _lora),
    # Optimiser.
    *_same(_OPTIM, f"{ACTOR}.optim", "lr", "betas", "weight_decay"),
    Rule(_keys(_OPTIM, "lr_warmup_ratio", "lr_warmup_steps"), _warmup),
    _to(f"{_OPTIM}.min_lr_ratio", f"{ACTOR}.optim.min_lr_ratio", by=lambda ratio: ratio or 0.0),
    _choice(f"{_OPTIM}.lr_scheduler_type", f"{ACTOR}.optim.lr_scheduler_type", constant="constant", cosine="cosine"),
    # Sharding. EasyR1 loads the actor in fp32 and the reference in bf16 by default.
    _fsdp("actor", ACTOR, "fp32"),
    _fsdp("ref", REF, "bf16"),
    Rule(("worker.actor.model.freeze_vision_tower",), _freeze),
    _to("worker.actor.offload.offload_params", f"{ACTOR}.fsdp_config.param_offload"),
    _to("worker.actor.offload.offload_optimizer", f"{ACTOR}.fsdp_config.optimizer_offload"),
    _to("worker.ref.offload.offload_params", f"{REF}.fsdp_config.param_offload"),
    # Rollout.
    _choice("worker.rollout.name", f"{ROLLOUT}.name", vllm="vllm"),
    *_same("worker.rollout", ROLLOUT, "n", "temperature", "top_p", "top_k", "seed", "ignore_eos", "enforce_eager"),
    *_same("worker.rollout", ROLLOUT, "gpu_memory_utilization", "enable_chunked_prefill"),
    *_same("worker.rollout", ROLLOUT, "max_num_batched_tokens", "disable_log_stats"),
    _to("worker.rollout.limit_images", f"++{ROLLOUT}.engine_kwargs.vllm.limit_mm_per_prompt", by=_media),
    _choice("worker.rollout.dtype", f"{ROLLOUT}.dtype", bf16="bfloat16", fp16="float16", fp32="float32"),
    _to("worker.rollout.tensor_parallel_size", f"{ROLLOUT}.tensor_model_parallel_size"),
    Rule(
        ("worker.rollout.max_model_len",),
        # Null means the model's whole context length in verl, and the longest prompt and response in EasyR1.
        lambda config: {f"{ROLLOUT}.max_model_len": config["worker.rollout.max_model_len"] or _max_length(config)},
    ),
    Rule(("worker.rollout.val_override_config",), _validation_sampling),
    # Reward.
    Rule(_REWARD_KEYS, _reward),
    # Algorithm.
    *_same("algorithm", "algorithm", "gamma", "lam"),
    _choice(
        "algorithm.adv_estimator",
        "algorithm.adv_estimator",
        **_unchanged("grpo", "grpo_passk", "rloo", "reinforce_plus_plus"),
    ),
    Rule(
        _keys("algorithm", "disable_kl", "use_kl_loss", "kl_penalty", "kl_coef", "kl_type", "kl_horizon", "kl_target"),
        _kl,
    ),
    # Trainer.
    Rule(("trainer.total_epochs", "trainer.max_steps"), _steps),
    *_same("trainer", "trainer", "project_name", "experiment_name", "logger", "nnodes", "n_gpus_per_node"),
    *_same("trainer", "trainer", "critic_warmup", "val_before_train", "val_only"),
    # EasyR1 validates once more at the end even at -1, which it documents as "no validation"; verl does not.
    _to("trainer.val_freq", "trainer.test_freq"),
    _to("trainer.val_generations_to_log", "trainer.log_val_generations"),
    _to("trainer.save_freq", "trainer.save_freq", by=lambda every: every if every > 0 else LAST_STEP_ONLY),
    _to("trainer.save_limit", "trainer.max_actor_ckpt_to_keep", by=lambda limit: limit if limit > 0 else None),
    _to(
        "trainer.save_model_only",
        SAVE_CONTENTS,
        by=lambda only: ["model"] if only else ["model", "optimizer", "extra"],
    ),
    _to("trainer.save_checkpoint_path", "trainer.default_local_dir"),
    Rule(("trainer.load_checkpoint_path", "trainer.find_last_checkpoint"), _resume),
    _to("trainer.ray_timeline", "ray_kwargs.timeline_json_file"),
)

#: Keys that verl lacks and does not need, each with the reason. A star stands for any ending.
HARMLESS: Final[Mapping[str, str]] = {
    "worker.critic.*": "only read with adv_estimator=gae, which is refused",
    "algorithm.filter_*": "only read with online_filtering, which is refused",
    "trainer.max_try_make_batch": "only read with online_filtering, which is refused",
    "worker.actor.fsdp.enable_rank0_init": "how weights are loaded, not what is trained",
    "worker.ref.fsdp.enable_rank0_init": "how weights are loaded, not what is trained",
    "worker.ref.fsdp.enable_cpu_offload": "verl always keeps the reference model's weights on the CPU",
    "worker.ref.offload.offload_optimizer": "the reference model has no optimizer",
    "worker.reward.num_cpus": "a reservation for EasyR1's reward actors; verl's are others",
    "worker.rollout.disable_tqdm": "a progress bar",
}

#: Keys of which verl can only do EasyR1's default, each with what to do instead.
REFUSED: Final[Mapping[str, str]] = {
    "data.answer_key": "verl reads the gold answer from the column reward_model, which `lad build` writes too",
    "data.video_key": "verl is given images only here",
    "data.video_fps": "verl is given images only here",
    "worker.hybrid_engine": "EasyR1 itself knows no other",
    "worker.actor.strategy": "EasyR1 itself knows no other",
    "worker.ref.strategy": "EasyR1 itself knows no other",
    "worker.actor.optim.strategy": "verl has no counterpart to adamw_bf16",
    "worker.actor.fsdp.enable_cpu_offload": "use worker.actor.offload.offload_params",
    "algorithm.online_filtering": "verl filters groups by another rule; train with EasyR1, or without it",
}


def translate(config: EasyR1Config) -> Overrides:
    """Return verl's overrides for an EasyR1 config.

    Raises:
        UsageError: A key or value has no counterpart in verl.
    """
    for name, remedy in REFUSED.items():
        _require_default(config, name, remedy)
    covered = {key for rule in RULES for key in rule.keys} | set(REFUSED)
    for name in config.values:
        if name not in covered and not any(fnmatchcase(name, pattern) for pattern in HARMLESS):
            _require_default(config, name)
    overrides: Overrides = {}
    for rule in RULES:
        overrides |= rule.translate(config)
    return overrides


def _require_default(config: EasyR1Config, name: str, remedy: str = "") -> None:
    value, default = config[name], config.keys[name].default
    if value != default:
        problem = f"verl has no counterpart to {value!r}, only to the default {default!r}"
        raise UsageError(problem, where=name, remedy=remedy)
