"""Estimates of a model's size, from its folder or its name, and of the memory that training it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lad_reasoner.models.weights import parameter_count
from lad_reasoner.support.errors import DataError
from lad_reasoner.training.preflight.context import Known

__all__ = [
    "GIB",
    "Memory",
    "attention_heads",
    "checkpoint_bytes",
    "context_length",
    "gigabytes",
    "parameters",
    "training_memory",
]

GIB = 1024**3

#: Qwen2.5-VL-3B's text model, used if only a model's name is known: the larger models differ by a third.
QWEN: Final[Mapping[str, int]] = {"vocab_size": 151_936, "num_hidden_layers": 36, "hidden_size": 2_048}

#: Attention heads of the published models (from their ``config.json``), used if only a model's name is known.
HEADS: Final[Mapping[str, int]] = {
    "qwen2.5-vl-3b": 16,
    "qwen2.5-vl-7b": 28,
    "qwen3-vl-4b": 32,
    "qwen3-vl-8b": 32,
}

#: Their vision tower, used likewise; each image token of a prompt merges four patches.
QWEN_VISION: Final[Mapping[str, int]] = {"depth": 32, "hidden_size": 1_280}
PATCHES_PER_TOKEN: Final = 4

#: Bytes of each logit: its bf16 value, the log softmax in fp32, and the gradients of both. Measured on an H200, where
#: flash-attn's cross entropy, which needs less, is not installed.
BYTES_PER_LOGIT: Final = 12

#: bf16 activations kept per layer and unit of width, with gradient checkpointing and without.
KEPT_WITH_CHECKPOINTING: Final = 1
KEPT_WITHOUT: Final = 34


@dataclass(frozen=True, slots=True)
class Memory:
    """The estimated memory of a run, in bytes.

    A GPU is fullest at one of two times. During an update the rollout engine sleeps. While the engine generates, the
    offloaded parts are on the host.

    Attributes:
        update: What is on each GPU during an update, by name.
        stays: What stays on each GPU in addition to the rollout engine, which takes ``gpu_memory_utilization``.
        engine: The rollout engine's weights on each GPU, in ``gpu_memory_utilization``.
        host: What is in the memory of each host.
    """

    update: Mapping[str, float]
    stays: float
    engine: float
    host: float


def gigabytes(size: float) -> str:
    """Return a size in words.

    Example:
        >>> gigabytes(3 * 1024**3)
        '3.0 GiB'
    """
    return f"{size / GIB:.1f} GiB"


def parameters(known: Known) -> int | None:
    """Return the model's number of parameters; None where neither its weights nor its name give one."""
    try:
        return parameter_count(str(known["worker.actor.model.model_path"] or ""))
    except (DataError, OSError):
        return None  # `check_model` reports the broken file


def attention_heads(known: Known) -> int | None:
    """Return the attention heads of the text model, None where they are not known."""
    if isinstance(heads := _text_config(known).get("num_attention_heads"), int):
        return heads
    name = str(known["worker.actor.model.model_path"] or "").lower()
    return next((heads for model, heads in HEADS.items() if model in name), None)


def context_length(known: Known) -> int | None:
    """Return the longest sequence that the model has positions for, None where its config is not known."""
    most = _text_config(known).get("max_position_embeddings")
    return most if isinstance(most, int) else None


def _text_config(known: Known) -> Mapping[str, Any]:
    """Return the part of the model's config that is about text; older releases have it at the top."""
    text = known.model_config.get("text_config")
    return text if isinstance(text, dict) else known.model_config


def checkpoint_bytes(known: Known) -> float | None:
    """Return the size of one checkpoint: weights as trained, and two moments unless only the model is saved."""
    count = parameters(known)
    if count is None:
        return None
    copies = 1 if known["trainer.save_model_only"] else 3
    if known["worker.actor.model.lora.rank"] > 0:
        return count * _bytes_each(known, "actor")  # frozen; the adapter's moments are small in comparison
    return count * _bytes_each(known, "actor") * copies


def training_memory(known: Known) -> Memory | None:
    """Estimate the memory of a run per GPU and host; None if the model's size or the number of GPUs is unknown."""
    count, gpus = parameters(known), known.world_size
    if count is None or gpus < 1:
        return None
    actor, lora = "worker.actor", known["worker.actor.model.lora.rank"] > 0
    each = _bytes_each(known, "actor")
    shard = count / (size if 1 < (size := known[f"{actor}.fsdp.fsdp_size"]) < gpus else gpus)
    # A LoRA adapter is small compared with the frozen weights, which are its reference model as well.
    weights, gradients = shard * each, 0.0 if lora else shard * each
    moments = 0.0 if lora else shard * each * 2
    reference = 0.0 if lora or known["algorithm.disable_kl"] else count / gpus * _bytes_each(known, "ref")
    engine = count * 2 / max(known["worker.rollout.tensor_parallel_size"], 1)
    update = {"weights": weights, "gradients": gradients, "moments": moments}
    away, host = 0.0, 0.0
    if known[f"{actor}.fsdp.enable_cpu_offload"]:
        host, update = sum(update.values()), {}
    else:
        away += weights if known[f"{actor}.offload.offload_params"] else 0.0
        away += moments if known[f"{actor}.offload.offload_optimizer"] else 0.0
    if known["worker.ref.fsdp.enable_cpu_offload"] or known["worker.ref.offload.offload_params"]:
        host, reference = host + reference, 0.0
    stays = sum(update.values()) - update.get("gradients", 0.0) - away + reference
    return Memory(
        update={**update, "reference": reference, "activations": _activation_bytes(known)},
        stays=stays,
        engine=engine,
        # The host holds the engine's weights while the engine sleeps, and the offloaded parts while it generates.
        host=known["trainer.n_gpus_per_node"] * (host + max(engine, away)),
    )


def _activation_bytes(known: Known) -> float:
    prompt, rows = known["data.max_prompt_length"], known["worker.actor.micro_batch_size_per_device_for_update"]
    tokens = (prompt + known["data.max_response_length"]) * rows
    text, vision = _text_config(known), known.model_config.get("vision_config") or {}
    vocabulary, layers, width = (int(text.get(name) or default) for name, default in QWEN.items())
    depth, patch_width = (int(vision.get(name) or default) for name, default in QWEN_VISION.items())
    checkpointing = known["worker.actor.model.enable_gradient_checkpointing"]
    kept = 2 * (KEPT_WITH_CHECKPOINTING if checkpointing else KEPT_WITHOUT)
    language = tokens * (vocabulary * BYTES_PER_LOGIT + layers * width * kept)
    # At most the whole prompt is images. Sequence parallelism splits the language model alone.
    images = prompt * rows * PATCHES_PER_TOKEN * depth * patch_width * kept
    return float(language / max(known["worker.actor.ulysses_size"], 1) + images)


def _bytes_each(known: Known, role: str) -> int:
    """Return the bytes of a weight: EasyR1 loads the actor in fp32 and the reference in bf16 by default."""
    default = "fp32" if role == "actor" else "bf16"
    return 4 if str(known[f"worker.{role}.fsdp.torch_dtype"] or default) in {"fp32", "float32"} else 2
