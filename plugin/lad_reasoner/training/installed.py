"""Which GRPO trainer is installed: EasyR1 or verl. Both are imported as ``verl``, so at most one is.

Files and package metadata tell them apart; importing the trainer would take seconds and load torch.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from lad_reasoner.support.errors import RunError, install_hint
from lad_reasoner.support.packages import installed_version

__all__ = [
    "Trainer",
    "TrainerName",
    "find_trainer",
    "gpu_count",
    "gpu_memory",
    "has_gpu",
    "joins_cluster",
    "require_trainer",
]

TrainerName = Literal["easyr1", "verl"]


@dataclass(frozen=True, slots=True)
class Trainer:
    """An installed trainer.

    Attributes:
        name: "easyr1" or "verl".
        version: The package's version, or "unknown" for a checkout that was never installed.
        package: The folder of its import package.
    """

    name: TrainerName
    version: str
    package: Path


def find_trainer() -> Trainer | None:
    """Return the installed trainer, or None."""
    spec = find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(next(iter(spec.submodule_search_locations)))
    release = installed_version("verl") or "unknown"
    if (package / "trainer" / "main.py").is_file() and (package / "trainer" / "config.py").is_file():
        return Trainer("easyr1", release, package)
    if (package / "trainer" / "main_ppo.py").is_file():
        return Trainer("verl", release, package)
    return None


def require_trainer() -> Trainer:
    """Return the installed trainer.

    Raises:
        RunError: There is none.
    """
    trainer = find_trainer()
    if trainer is None:
        remedy = f"{install_hint('cpu')} (verl, without a GPU). With GPUs, use the extra vllm or easyr1"
        raise RunError("neither EasyR1 nor verl is installed", remedy=remedy)
    return trainer


def has_gpu() -> bool:
    """Return whether this machine shows an NVIDIA GPU that the environment does not hide.

    Example:
        >>> import os
        >>> os.environ["CUDA_VISIBLE_DEVICES"] = ""
        >>> has_gpu()
        False
        >>> del os.environ["CUDA_VISIBLE_DEVICES"]
    """
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in {"", "-1"} and gpu_count() > 0


def gpu_count() -> int:
    """Return how many NVIDIA GPUs this machine shows."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


@cache
def gpu_memory() -> int | None:
    """Return the bytes of this machine's smallest NVIDIA GPU, or None where its driver does not tell in time."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
        return min(int(line) for line in said.stdout.split("\n") if line.strip()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def joins_cluster() -> bool:
    """Return whether a run joins a Ray cluster (RAY_ADDRESS), whatever the address looks like."""
    return os.environ.get("RAY_ADDRESS", "") not in {"", "local"}
