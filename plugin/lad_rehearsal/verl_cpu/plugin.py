"""Register the CPU platform; verl loads this (VERL_USE_EXTERNAL_MODULES, or the entry point group ``verl.plugins``).

Nothing happens unless VERL_PLATFORM=cpu. With a visible GPU it is an error, because silently training on the CPU would
waste hours.
"""

from __future__ import annotations

import os
from typing import Final

from lad_reasoner.support.errors import RunError

__all__ = ["CPU_PLATFORM", "ROLLOUT_NAME", "register"]

CPU_PLATFORM: Final = "cpu"
ROLLOUT_NAME: Final = "hf"


def register() -> None:
    """Register the platform with verl; `external` registers engine and rollout when a model is built.

    Raises:
        RunError: A GPU is visible.
    """
    import torch

    if torch.cuda.is_available():
        raise RunError(
            f"VERL_PLATFORM=cpu, but this machine has {torch.cuda.device_count()} visible GPU(s)",
            remedy="Unset VERL_PLATFORM to train on the GPU",
        )
    from verl.plugin.platform import PlatformRegistry

    from lad_rehearsal.verl_cpu.platform import CpuPlatform

    PlatformRegistry.register(CPU_PLATFORM)(CpuPlatform)


if os.environ.get("VERL_PLATFORM", "").strip().lower() == CPU_PLATFORM:
    register()
