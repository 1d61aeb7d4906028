"""Register engine and rollout of the CPU runtime on import (``actor_rollout_ref.model.external_lib``).

verl imports this module in each process that reads the model's config, after the environment of its rank is set. That
is early enough to join the process group over gloo before verl does: verl would request ``cpu:gloo,cpu:gloo``, which
torch rejects.
"""

from __future__ import annotations

import os
import sys
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


def _store_text_positions() -> None:
    """Make verl's own agent loop store one position per token, in a process that runs it.

    verl stores positions of shape (4, tokens) and, if all sequences of a batch have the same length, later splits them
    along the wrong dimension (verl issue 7899). `CpuEngine` computes vision positions itself.
    """
    loop = sys.modules.get("verl.experimental.agent_loop.agent_loop")
    classes = [loop.AgentLoopWorker] if loop else []
    while classes:  # Ray copies inherited methods into the class of an actor
        owner = classes.pop()
        owner._compute_position_ids = _text_positions  # noqa: SLF001
        classes += owner.__subclasses__()


def _text_positions(
    _worker: Any, _input_ids: torch.Tensor, mask: torch.Tensor, multi_modal_inputs: dict[str, Any], *_unused: Any
) -> torch.Tensor:
    multi_modal_inputs.pop("mm_token_type_ids", None)  # the model does not accept it; only positions need it
    positions: torch.Tensor = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return positions


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
_store_text_positions()
