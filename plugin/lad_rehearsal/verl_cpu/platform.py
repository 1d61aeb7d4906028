"""verl's platform interface for a machine without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase

__all__ = ["CpuPlatform"]


def _nothing(*_args: object, **_kwargs: object) -> None:
    """Do nothing: the device call has no meaning on a CPU."""


def _no_memory(*_args: object, **_kwargs: object) -> int:
    """Return 0: there is no device memory."""
    return 0


def _device_module() -> ModuleType:
    """Return ``torch.cpu`` with the functions that verl expects of ``torch.cuda``."""
    module = ModuleType("lad_rehearsal.verl_cpu.device")
    vars(module).update({name: value for name, value in vars(torch.cpu).items() if not name.startswith("__")})
    vars(module).update(
        empty_cache=_nothing,
        get_device_name=lambda *_args: "cpu",
        get_rng_state=lambda *_args: torch.get_rng_state(),
        ipc_collect=_nothing,
        manual_seed=torch.manual_seed,
        manual_seed_all=torch.manual_seed,
        max_memory_allocated=_no_memory,
        max_memory_reserved=_no_memory,
        mem_get_info=lambda *_args: (psutil.virtual_memory().available, psutil.virtual_memory().total),
        memory_allocated=_no_memory,
        memory_reserved=_no_memory,
        reset_peak_memory_stats=_nothing,
        set_rng_state=lambda state, *_args: torch.set_rng_state(state),
    )
    return module


class CpuPlatform(PlatformBase):  # type: ignore[misc]
    """verl's view of a CPU.

    verl's workers count only Ray resources named GPU or NPU. A run without a GPU therefore starts Ray with one
    simulated GPU for each trainer process: see `cpu_overrides`.
    """

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        """Return True: there is always a CPU."""
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:  # noqa: ARG002
        """Return False: VERL_PLATFORM selects the CPU. Detection could prefer it to a GPU."""
        return False

    def current_device(self) -> Any:
        """Return the argument of ``Tensor.to``; an index would mean a GPU."""
        return "cpu"

    def device_count(self) -> int:
        """Return 1."""
        return 1

    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = _nothing

    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:  # noqa: ARG002
        """Return None twice: a CPU has no compute capability."""
        return None, None

    def communication_backend_name(self) -> str:
        """Return gloo, the only backend that needs no device."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """Return the variable with which Ray assigns the simulated GPUs."""
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:  # noqa: ARG002
        """Do nothing: there is no profiler range to mark."""
        yield

    def ray_resource_name(self) -> str:
        """Return GPU, which verl's worker groups count."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """Return the variable that stops Ray from setting CUDA_VISIBLE_DEVICES."""
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        """Return False: there is no device memory to share."""
        return False

    def cudart(self) -> None:
        """Return None: there is no device runtime."""
