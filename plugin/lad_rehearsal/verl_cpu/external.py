"""Register engine and rollout of the CPU runtime on import (``actor_rollout_ref.model.external_lib``).

verl imports this module in each process that reads the model's config, after the environment of its rank is set. That
is early enough to join the process group over gloo before verl does: verl would request ``cpu:gloo,cpu:gloo``, which
torch rejects.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from verl.utils.device import get_device_name
from verl.workers.engine.base import EngineRegistry
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplicaRegistry

from lad_reasoner.support.errors import UsageError
from lad_rehearsal.verl_cpu.plugin import CPU_PLATFORM, ROLLOUT_NAME

__all__: list[str] = []


def _join() -> None:
    """Join the process group if Ray started this process as a trainer."""
    if "WORLD_SIZE" in os.environ and not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "cpu:gloo",
            init_method=os.environ.get("DIST_INIT_METHOD"),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )


def _register() -> None:
    from lad_rehearsal.verl_cpu.engine import CpuEngine

    EngineRegistry.register("language_model", ["fsdp2"], device=CPU_PLATFORM)(CpuEngine)
    RolloutReplicaRegistry.register(ROLLOUT_NAME, _load_replica)
    # verl has a registry for replicas, but only this table for adapters.
    _ROLLOUT_REGISTRY[ROLLOUT_NAME, "async"] = "lad_rehearsal.verl_cpu.replica.PolicyAdapter"


def _load_replica() -> Any:
    from lad_rehearsal.verl_cpu.replica import HfReplica

    return HfReplica


if get_device_name() != CPU_PLATFORM:
    raise UsageError(
        f"{__name__} is only for runs without a GPU",
        where="actor_rollout_ref.model.external_lib",
        remedy="Leave the key unset",
    )
_join()
_register()
