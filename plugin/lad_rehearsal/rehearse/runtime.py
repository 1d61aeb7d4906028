"""The trainer that rehearses, and the Python interpreter that runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from lad_reasoner.support.errors import RunError, UsageError, install_hint
from lad_reasoner.training.installed import Trainer, TrainerName, find_trainer, require_trainer
from lad_reasoner.training.preflight.machine import EASYR1_NEEDS
from lad_reasoner.training.runtimes import RolloutEngine
from lad_rehearsal.easyr1_cpu.environment import easyr1_environment
from lad_rehearsal.verl_cpu.runtime import cpu_environment
from lad_rehearsal.vllm_cpu import require_vllm

__all__ = ["RehearsalRuntime", "find_runtime", "unmet_requirements"]

HOME: Final = "EASYR1_HOME"
PYTHON: Final = "EASYR1_PYTHON"

#: Requirements that only a GPU run has; a rehearsal replaces or omits them.
_ON_GPUS_ONLY: Final = {"vllm", "flash-attn"}

_VERSIONS: Final = """\
import json, sys
from importlib.metadata import PackageNotFoundError, version
def of(name):
    try: return version(name)
    except PackageNotFoundError: return None
print(json.dumps({name: of(name) for name in sys.argv[1:]}))
"""


@dataclass(frozen=True, slots=True)
class RehearsalRuntime:
    """A trainer and its environment.

    Attributes:
        python: The interpreter that has the trainer's requirements.
        checkout: EasyR1's checkout; None if the trainer is installed.
        engine: What samples the responses.
    """

    trainer: Trainer
    python: str
    checkout: Path | None = None
    engine: RolloutEngine = "transformers"

    def environment(self, folder: Path) -> dict[str, str]:
        """Return all environment variables of the rehearsal's processes; ``folder`` is the run's, for Ray."""
        # A rehearsal does not use a cluster's GPUs: Ray starts on this machine, and torch sees no GPU.
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        own = {"PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        if self.trainer.name == "easyr1":
            return inherited | own | easyr1_environment(folder, checkout=self.checkout)
        return inherited | own | cpu_environment(folder, engine=self.engine)


def find_runtime(wanted: TrainerName | None = None, *, engine: RolloutEngine = "transformers") -> RehearsalRuntime:
    """Return the requested trainer; by default EasyR1 if EASYR1_HOME names a checkout, else the installed one.

    Raises:
        UsageError: EASYR1_HOME is not a checkout of EasyR1, or the trainer cannot use the engine here.
        RunError: The trainer or the engine is not installed, or the interpreter lacks requirements.
    """
    home = os.environ.get(HOME)
    if wanted == "easyr1" or (wanted is None and home):
        if engine == "vllm":
            problem = "EasyR1 needs vLLM's sleep mode, which vLLM does not have on a CPU"
            raise UsageError(problem, where="--engine vllm", remedy="Rehearse with verl: --as verl")
        found = _checkout(Path(home).expanduser().absolute()) if home else _installed("easyr1", engine)
        _require_versions(found.python)
        return found
    if engine == "vllm":
        require_vllm()
    return _installed(wanted or require_trainer().name, engine)


def _checkout(home: Path) -> RehearsalRuntime:
    package = home / "verl"
    if not (package / "trainer" / "main.py").is_file():
        raise UsageError(f"{home} is not a checkout of hiyouga/EasyR1", where=HOME)
    trainer = Trainer("easyr1", f"checkout {home}", package)
    return RehearsalRuntime(trainer, os.environ.get(PYTHON) or sys.executable, home)


def _installed(name: TrainerName, engine: RolloutEngine) -> RehearsalRuntime:
    trainer = find_trainer()
    if trainer is None or trainer.name != name:
        remedy = f"Set {HOME} to a checkout" if name == "easyr1" else install_hint("cpu")
        raise RunError(f"{name} is not installed", remedy=remedy)
    return RehearsalRuntime(trainer, sys.executable, engine=engine)


def _require_versions(python: str) -> None:
    """Check EasyR1's requirements in the interpreter that will run it."""
    needs = [need for need in map(Requirement, EASYR1_NEEDS) if need.name not in _ON_GPUS_ONLY]
    try:
        command = [python, "-c", _VERSIONS, *[need.name for need in needs]]
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(f"cannot run {python}: {error}", remedy=f"Set {PYTHON} to a Python interpreter") from error
    if unmet := unmet_requirements(needs, json.loads(asked.stdout)):
        remedy = f"Set {PYTHON} to the interpreter of an environment that has them (docs/easyr1.md, Rehearsal)"
        raise RunError(f"EasyR1 lacks requirements: {', '.join(unmet)}", where=python, remedy=remedy)


def unmet_requirements(needs: list[Requirement], versions: Mapping[str, str | None]) -> list[str]:
    """List the packages that are missing or have the wrong version, each with what it needs."""
    return [
        f"{need.name} {found or 'not installed'} (needs {need})"
        for need in needs
        if (found := versions[need.name]) is None or not need.specifier.contains(found, prereleases=True)
    ]
