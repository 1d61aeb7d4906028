"""Patch torch in EasyR1's processes so that its device is the CPU.

EasyR1 uses "cuda" and "nccl", and torch.cuda for names, memory and random states. Each is replaced for the CPU; EasyR1
itself is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import psutil
import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import _init_utils
from torch.overrides import TorchFunctionMode

__all__ = ["CpuDevices", "apply_patches"]

_CPU = torch.device("cpu")


class CpuDevices(TorchFunctionMode):  # type: ignore[misc]
    """Replaces CUDA devices in the arguments of torch functions by the CPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function with CPU devices."""
        named = {key: _moved(value) if key == "device" else value for key, value in (kwargs or {}).items()}
        return func(*[_moved(value) for value in args], **named)


def _moved(value: Any) -> Any:
    if isinstance(value, torch.device):
        return _CPU if value.type == "cuda" else value
    return _CPU if isinstance(value, str) and value.partition(":")[0] == "cuda" else value


def apply_patches() -> None:
    """Replace torch.cuda's functions, use gloo and CPU meshes, and replace flash attention."""
    _replace_cuda()
    _distribute_on_cpu()
    _replace_flash_attention()
    CpuDevices().__enter__()  # until the process ends


def _replace_cuda() -> None:
    cuda = torch.cuda
    cuda.current_device = lambda: _CPU
    cuda.get_device_name = lambda *_: "CPU"
    cuda.mem_get_info = lambda *_: (psutil.virtual_memory().available, psutil.virtual_memory().total)
    cuda.get_rng_state = lambda *_: torch.get_rng_state()
    cuda.set_rng_state = lambda state, *_: torch.set_rng_state(state)
    cuda.manual_seed = torch.manual_seed


def _distribute_on_cpu() -> None:
    join, mesh = distributed.init_process_group, DeviceMesh.__init__

    @wraps(join)
    def join_gloo(backend: str | None = None, *args: Any, **options: Any) -> None:  # noqa: ARG001
        join("gloo", *args, **options)

    @wraps(mesh)
    def mesh_on_cpu(self: DeviceMesh, device_type: str, *args: Any, **options: Any) -> None:  # noqa: ARG001
        mesh(self, "cpu", *args, **options)

    distributed.init_process_group = join_gloo
    DeviceMesh.__init__ = mesh_on_cpu
    # FSDP allows sending weights from rank 0 only between GPUs, but gloo does it on a CPU too.
    _init_utils._check_module_states_for_sync_module_states = lambda _states: None  # noqa: SLF001


def _replace_flash_attention() -> None:
    from transformers import PreTrainedModel

    choose = PreTrainedModel._check_and_adjust_attn_implementation  # noqa: SLF001

    @wraps(choose)
    def choose_sdpa(self: Any, attention: str | None, *args: Any, **options: Any) -> Any:
        return choose(self, "sdpa" if attention == "flash_attention_2" else attention, *args, **options)

    PreTrainedModel._check_and_adjust_attn_implementation = choose_sdpa  # noqa: SLF001
