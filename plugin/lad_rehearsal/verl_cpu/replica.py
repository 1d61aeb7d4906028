"""The rollout "hf" as verl sees it: beside each trainer process a replica, which lives in that very process.

verl calls this hybrid: rollout and trainer take turns. Nothing is served over a port; `rollout.BatchRollout` asks the
trainer's process to sample.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica

from lad_reasoner.support.errors import RunError
from lad_rehearsal.verl_cpu.policy import Policy

if TYPE_CHECKING:
    from lad_rehearsal.verl_cpu.decoding import Response, Sampling
    from lad_rehearsal.verl_cpu.encoding import EncodedPrompts

__all__ = ["HfReplica", "PolicyAdapter", "sample"]


class PolicyAdapter(BaseRollout):  # type: ignore[misc]
    """The policy of a trainer process, as verl hands it new weights."""

    policy: ClassVar[Policy]

    def __init__(self, config: Any, model_config: Any, device_mesh: Any) -> None:
        super().__init__(config, model_config, device_mesh)
        PolicyAdapter.policy = Policy(
            path=self.model_config.local_path,
            dtype=self.config.dtype,
            attention=self.model_config.override_config.get("attn_implementation", "sdpa"),
            seed=self.config.seed + torch.distributed.get_rank(),
            max_rows=self.config.max_num_seqs,
        )

    async def resume(self, tags: list[str]) -> None:
        """Do nothing: the policy never sleeps."""

    async def release(self) -> None:
        """Do nothing: see `resume`."""

    async def update_weights(
        self,
        weights: Generator[tuple[str, torch.Tensor], None, None],
        wire_format: str = "named_tensors",
        *,
        global_steps: int | None = None,
        **_unused: Any,
    ) -> None:
        """Take the trainer's weights; each is gathered from its shards, by all trainer processes at once.

        Raises:
            RunError: The weights come as differences.
        """
        if wire_format != "named_tensors":
            raise RunError("weight update", found=f"wire format {wire_format!r}", expected="named_tensors")
        self.policy.load(weights, version=global_steps)


class HfReplica(RolloutReplica):  # type: ignore[misc]
    """A trainer process, as verl lists it among the replicas.

    Attributes:
        processes: The trainer processes, as Ray actors. Of the class, because verl makes the replicas and
            `rollout.BatchRollout` in one process but hands the one nothing of the other.
    """

    processes: ClassVar[list[Any]] = []

    async def launch_servers(self) -> None:
        """Start nothing: the trainer process is there."""
        self.processes.append(self.workers[0])
        # verl sends the handle to its load balancer, which would import verl to read an actor's.
        self._server_handle = self._server_address = f"trainer process {self.replica_rank}"


def sample(_worker: Any, prompts: EncodedPrompts, sampling: Sampling) -> tuple[int, list[Response]]:
    """Sample in this process: called through Ray in a trainer process."""
    return PolicyAdapter.policy.generate(prompts, sampling)
