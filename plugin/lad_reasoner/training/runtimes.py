"""The CPU runtimes that another package provides, found through the entry point group ``lad_reasoner.runtimes``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Literal, Protocol, cast

from lad_reasoner.support.errors import RunError

__all__ = ["CpuRuntime", "RolloutEngine", "cpu_runtime"]

#: What samples responses without a GPU: the runtime's own rollout with transformers, or verl's vLLM server.
RolloutEngine = Literal["transformers", "vllm"]

#: The group in which a package names a module with the functions of `CpuRuntime`, under the name of its trainer.
ENTRY_POINT_GROUP: Final = "lad_reasoner.runtimes"


class CpuRuntime(Protocol):
    """What a run of verl needs on a machine without a GPU."""

    def cpu_overrides(
        self, *, ranks: int = 1, nodes: int = 1, own_ray: bool = True, engine: RolloutEngine = "transformers"
    ) -> dict[str, object]:
        """Return the overrides to lay over the translated config: Hydra key to value."""
        ...

    def cpu_environment(
        self, folder: Path, *, threads: int | None = None, engine: RolloutEngine = "transformers"
    ) -> Mapping[str, str]:
        """Return the trainer's environment variables for a run that starts its own Ray in ``folder``."""
        ...

    def cluster_environment(self, *, threads: int | None = None) -> Mapping[str, str]:
        """Return the environment variables that each process needs on a running Ray cluster."""
        ...


def cpu_runtime() -> CpuRuntime:
    """Return the CPU runtime of verl.

    Raises:
        RunError: No installed package provides one.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP, name="verl"):
        return cast("CpuRuntime", entry.load())
    raise RunError("no CPU runtime for verl is installed", remedy="Install lad-reasoner again, or use a GPU")
