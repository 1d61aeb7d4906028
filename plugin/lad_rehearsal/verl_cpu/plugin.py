"""Loaded by verl (VERL_USE_EXTERNAL_MODULES, or the entry point group ``verl.plugins``): the CPU runtime.

Does nothing unless VERL_PLATFORM=cpu asks for it, and refuses beside a GPU: training there on the CPU would be a
mistake that costs hours and says nothing.
"""

from __future__ import annotations

import os
from typing import Final

from lad_reasoner.support.errors import RunError

__all__ = ["CPU_PLATFORM", "ROLLOUT_NAME", "register"]

CPU_PLATFORM: Final = "cpu"
ROLLOUT_NAME: Final = "hf"


def register() -> None:
    """Register the platform with verl; engine and rollout follow where a model is built (`trainers.cpu.external`).

    Raises:
        RunError: A GPU is visible.
    """
    import torch

    if torch.cuda.is_available():
        raise RunError(
            "VERL_PLATFORM=cpu",
            found=f"{torch.cuda.device_count()} visible GPU(s)",
            expected="none",
            remedy="unset VERL_PLATFORM to train on the GPU",
        )
    from verl.plugin.platform import PlatformRegistry

    from lad_rehearsal.verl_cpu.platform import CpuPlatform

    PlatformRegistry.register(CPU_PLATFORM)(CpuPlatform)


if os.environ.get("VERL_PLATFORM", "").strip().lower() == CPU_PLATFORM:
    register()
