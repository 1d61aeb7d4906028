"""How large a model is, from its folder or its name, and what training it takes. Estimates, and called so."""

from __future__ import annotations

import re
from pathlib import Path

from lad_reasoner.trainers.checks.known import Known

__all__ = ["checkpoint_bytes", "gigabytes", "parameters", "training_bytes"]

GIB = 1024**3


def gigabytes(size: float) -> str:
    """Return a size in words.

    Example:
        >>> gigabytes(3 * 1024**3)
        '3.0 GiB'
    """
    return f"{size / GIB:.1f} GiB"


def parameters(known: Known) -> float | None:
    """Return the number of parameters: from the weights' size at two bytes each, or from a name such as ...-3B-...

    The published names round: Qwen2.5-VL-3B has 3.75 billion, of which 0.67 are the vision tower.
    """
    path = str(known["worker.actor.model.model_path"] or "")
    if Path(path).is_dir():
        sizes = [file.stat().st_size for file in Path(path).glob("*.safetensors")]
        return sum(sizes) / 2 if sizes else None
    billions = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)[bB](?![a-zA-Z])", path)
    return float(billions[1]) * 1.25e9 if billions else None


def checkpoint_bytes(known: Known) -> float | None:
    """Return the size of one checkpoint: weights as trained, and two moments unless only the model is saved."""
    count = parameters(known)
    if count is None:
        return None
    copies = 1 if known["trainer.save_model_only"] else 3
    if known["worker.actor.model.lora.rank"] > 0:
        return count * 2  # frozen weights in bf16; the adapter's moments are small beside them
    return count * _bytes_each(known) * copies


def training_bytes(known: Known) -> tuple[float, float] | None:
    """Return the bytes of weights, gradients and moments over all ranks: on the GPUs, and on the hosts.

    Activations and the rollout engine come on top.
    """
    count = parameters(known)
    if count is None:
        return None
    each = _bytes_each(known)
    if known["worker.actor.model.lora.rank"] > 0:
        weights, moments = count * 2, 0.0
    else:
        weights, moments = count * each * 2, count * each * 2
    reference = 0.0 if known["algorithm.disable_kl"] else count * 2
    offloaded = 0.0
    if known["worker.actor.offload.offload_optimizer"]:
        offloaded, moments = offloaded + moments, 0.0
    if known["worker.ref.fsdp.enable_cpu_offload"] or known["worker.ref.offload.offload_params"]:
        offloaded, reference = offloaded + reference, 0.0
    return weights + moments + reference, offloaded


def _bytes_each(known: Known) -> int:
    return 2 if known["worker.actor.fsdp.torch_dtype"] in {"bf16", "fp16", "bfloat16", "float16"} else 4
