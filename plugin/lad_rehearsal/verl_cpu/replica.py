"""verl's interface to the rollout "hf": one replica per trainer process, in that same process.

verl calls this hybrid: rollout and trainer alternate. There is no server; `rollout.BatchRollout` calls the trainer's
process.
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
    from lad_rehearsal.verl_cpu.decoding import RolloutSampling, SampledResponse
    from lad_rehearsal.verl_cpu.encoding import EncodedPrompts

__all__ = ["HfReplica", "PolicyAdapter", "sample"]


class PolicyAdapter(BaseRollout):  # type: ignore[misc]
    """Receives a trainer process's new weights from verl."""

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
        """Load the trainer's weights; all trainer processes gather each weight from its shards together.

        Raises:
            RunError: verl sends weight differences.
        """
        if wire_format != "named_tensors":
            raise RunError(f"weight update: the CPU rollout cannot read wire format {wire_format!r}")
        self.policy.load(weights, version=global_steps)


class HfReplica(RolloutReplica):  # type: ignore[misc]
    """A trainer process in verl's list of replicas.

    Attributes:
        processes: The trainer processes, as Ray actors. A class attribute, because verl creates the replicas and
            `rollout.BatchRollout` in one process without passing one to the other.
    """

    processes: ClassVar[list[Any]] = []

    async def launch_servers(self) -> None:
        """Start nothing: the trainer process already runs."""
        self.processes.append(self.workers[0])
        # verl sends the handle to its load balancer, which would have to import verl to unpickle an actor's.
        self._server_handle = self._server_address = f"trainer process {self.replica_rank}"


def sample(_worker: Any, prompts: EncodedPrompts, sampling: RolloutSampling) -> tuple[int, list[SampledResponse]]:
    """Sample in this process; called through Ray in a trainer process."""
    return PolicyAdapter.policy.generate(prompts, sampling)
