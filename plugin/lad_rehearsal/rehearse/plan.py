"""From a config for GPUs to one for a rehearsal on a CPU: every changed key, with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.runtimes import RolloutEngine

__all__ = ["PROMPTS", "RESPONSE_TOKENS", "Change", "scale_down", "trained_roles"]

#: Prompts per step: the smallest batch that can have two mini batches, if the config has several.
PROMPTS: Final = 2

#: A tiny model rarely ends a response by itself; the template and a sentence fit in this length.
RESPONSE_TOKENS: Final = 64

_NO_FLASH: Final = "needs flash attention, which needs a GPU"
_NO_BF16: Final = "the CPU run uses fp32"
_NO_OFFLOAD: Final = "there is no GPU memory to free"
_ONE_RANK: Final = "one process on this machine"


@dataclass(frozen=True, slots=True)
class Change:
    """A key of EasyR1 with a different value in the rehearsal, and the reason."""

    key: str
    was: Any
    now: Any
    why: str


def scale_down(
    config: EasyR1Config, *, steps: int, paths: dict[str, str], engine: RolloutEngine = "transformers"
) -> tuple[EasyR1Config, list[Change]]:
    """Return the config of the rehearsal, and its differences from the given one for GPUs.

    ``paths`` has the keys of files and folders that the rehearsal creates, with their values.
    """
    wanted = [
        *((key, path, "made for the rehearsal") for key, path in paths.items()),
        *_sizes(config),
        *_precision(config),
        *_placement(config),
        *_schedule(steps),
        *(_vllm(config) if engine == "vllm" else ()),
    ]
    changes = [Change(key, config[key], now, why) for key, now, why in wanted if config[key] != now]
    scaled = config.replace(**{change.key.replace(".", "__"): change.now for change in changes})
    return scaled, changes


_Wanted = Iterator[tuple[str, Any, str]]


def trained_roles(config: EasyR1Config) -> tuple[str, ...]:
    """Return the trained models; without a critic, its keys are not read."""
    return ("actor", "critic") if config["algorithm.adv_estimator"] == "gae" else ("actor",)


def _sizes(config: EasyR1Config) -> _Wanted:
    """Batches with few prompts. The number of updates per batch and n do not change."""
    small = "few prompts per step"
    batch, n = config["data.rollout_batch_size"], config["worker.rollout.n"]
    yield "data.rollout_batch_size", min(batch, PROMPTS), small
    if (mini := config["data.mini_rollout_batch_size"]) is not None:
        yield "data.mini_rollout_batch_size", PROMPTS if mini >= batch else 1, small
    if config["data.val_batch_size"] > PROMPTS:
        yield "data.val_batch_size", PROMPTS, small
    yield "data.max_response_length", min(config["data.max_response_length"], RESPONSE_TOKENS), "short responses"
    for role in trained_roles(config):
        whole = config[f"worker.{role}.global_batch_size"]
        prompts = min(batch, PROMPTS) if whole >= batch else 1
        yield f"worker.{role}.global_batch_size", prompts, small
        for use in ("update", "experience"):
            key = f"worker.{role}.micro_batch_size_per_device_for_{use}"
            yield key, _divisor(prompts * n, at_most=config[key]), "divides the small batch"


def _divisor(number: int, *, at_most: int) -> int:
    """Return the largest divisor of a number up to a bound.

    Example:
        >>> _divisor(16, at_most=6)
        4
    """
    return next(size for size in range(min(number, max(at_most, 1)), 0, -1) if number % size == 0)


def _precision(config: EasyR1Config) -> _Wanted:
    for role in (*trained_roles(config), "ref"):
        for name in ("torch_dtype", "mp_param_dtype", "mp_reduce_dtype", "mp_buffer_dtype"):
            yield f"worker.{role}.fsdp.{name}", "fp32", _NO_BF16
    yield "worker.rollout.dtype", "fp32", _NO_BF16


def _placement(config: EasyR1Config) -> _Wanted:
    for role in trained_roles(config):
        for name in ("padding_free", "dynamic_batching"):
            yield f"worker.{role}.{name}", False, _NO_FLASH
        yield f"worker.{role}.ulysses_size", 1, _ONE_RANK
        yield f"worker.{role}.model.enable_gradient_checkpointing", False, "trades time for GPU memory"
        yield f"worker.{role}.offload.offload_optimizer", False, _NO_OFFLOAD
    yield "worker.actor.use_torch_compile", False, "compiling takes longer than two steps"
    for role in (*trained_roles(config), "ref"):
        yield f"worker.{role}.fsdp.enable_cpu_offload", False, _NO_OFFLOAD
        yield f"worker.{role}.fsdp.enable_rank0_init", True, "the alternative loads weights directly onto a GPU"
        yield f"worker.{role}.fsdp.fsdp_size", -1, _ONE_RANK
        yield f"worker.{role}.offload.offload_params", False, _NO_OFFLOAD
    yield "worker.rollout.tensor_parallel_size", 1, _ONE_RANK
    yield "trainer.nnodes", 1, _ONE_RANK
    yield "trainer.n_gpus_per_node", 1, _ONE_RANK


def _schedule(steps: int) -> _Wanted:
    yield "trainer.max_steps", steps, "a rehearsal"
    yield "trainer.val_freq", steps, "validates once, after the last step"
    yield "trainer.save_freq", steps, "saves once, after the last step"
    yield "trainer.val_only", False, "there would be no step"
    yield "trainer.logger", ["console", "file"], "no data leaves this machine"
    yield "trainer.find_last_checkpoint", False, "always starts from step 0"
    yield "trainer.load_checkpoint_path", None, "a checkpoint of the real model does not fit the tiny one"
    yield "trainer.ray_timeline", None, "not needed"


def _vllm(config: EasyR1Config) -> _Wanted:
    """VLLM keeps the limits of the GPU run, although the rehearsal's responses are shorter."""
    longest = config["data.max_prompt_length"] + config["data.max_response_length"]
    yield "worker.rollout.max_model_len", config["worker.rollout.max_model_len"] or longest, "the GPU run's limit"
    yield "worker.rollout.enforce_eager", True, "compiling takes minutes"
    yield "worker.rollout.gpu_memory_utilization", 0.1, "a CPU has no GPU memory; the cache takes 1 GiB"
