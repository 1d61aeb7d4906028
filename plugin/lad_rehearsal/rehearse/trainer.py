"""Which trainer rehearses, and the python that it lives in."""

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

from lad_reasoner.support.errors import RunError, UsageError
from lad_reasoner.training.installed import Trainer, TrainerName, find_trainer, require_trainer
from lad_reasoner.training.preflight.machine import EASYR1_NEEDS
from lad_rehearsal.easyr1_cpu.environment import easyr1_environment
from lad_rehearsal.verl_cpu.runtime import cpu_environment

__all__ = ["Rig", "find_rig"]

HOME: Final = "EASYR1_HOME"
PYTHON: Final = "EASYR1_PYTHON"

#: What a GPU needs, and a rehearsal has stand-ins for or does without.
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
class Rig:
    """A trainer and where it runs.

    Attributes:
        trainer: EasyR1 or verl.
        python: The interpreter that has what the trainer needs.
        checkout: EasyR1's checkout; None where the trainer is installed.
    """

    trainer: Trainer
    python: str
    checkout: Path | None = None

    def environment(self, folder: Path) -> dict[str, str]:
        """Return all environment variables of the rehearsal's processes.

        Args:
            folder: The run's own folder for Ray.
        """
        # A cluster's GPUs are not for rehearsals: Ray starts here, and torch is shown no GPU.
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        own = {"PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        easyr1 = self.trainer.name == "easyr1"
        runtime = easyr1_environment(folder, checkout=self.checkout) if easyr1 else cpu_environment(folder)
        return inherited | own | runtime


def find_rig(wanted: TrainerName | None = None) -> Rig:
    """Return the trainer asked for; else EasyR1 if EASYR1_HOME names a checkout, else what is installed.

    Raises:
        UsageError: EASYR1_HOME is no checkout of EasyR1.
        RunError: The trainer is not installed, or its python lacks what it needs.
    """
    home = os.environ.get(HOME)
    if wanted == "easyr1" or (wanted is None and home):
        rig = _checkout(Path(home).expanduser().absolute()) if home else Rig(_installed("easyr1"), sys.executable)
        _refuse_versions(rig.python)
        return rig
    return Rig(require_trainer() if wanted is None else _installed(wanted), sys.executable)


def _checkout(home: Path) -> Rig:
    package = home / "verl"
    if not (package / "trainer" / "main.py").is_file():
        raise UsageError(HOME, found=str(home), expected="a checkout of hiyouga/EasyR1")
    return Rig(Trainer("easyr1", f"checkout {home}", package), os.environ.get(PYTHON) or sys.executable, home)


def _installed(name: TrainerName) -> Trainer:
    trainer = find_trainer()
    if trainer is None or trainer.name != name:
        remedy = f"set {HOME} to a checkout" if name == "easyr1" else "pip install 'lad-reasoner[cpu]'"
        raise RunError(name, found="it not installed here", remedy=remedy)
    return trainer


def _refuse_versions(python: str) -> None:
    """Look up what EasyR1 needs in the python that will run it.

    Raises:
        RunError: The python cannot be started, or a requirement is not met.
    """
    needs = [need for need in map(Requirement, EASYR1_NEEDS) if need.name not in _ON_GPUS_ONLY]
    try:
        asked = subprocess.run(
            [python, "-c", _VERSIONS, *[need.name for need in needs]], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(python, found=str(error), expected="a python", remedy=f"set {PYTHON}") from error
    if unmet := _unmet(needs, json.loads(asked.stdout)):
        raise RunError(
            f"EasyR1 in {python}",
            found=", ".join(unmet),
            remedy=f"set {PYTHON} to the python of an environment that has them (docs/easyr1.md, Rehearsal)",
        )


def _unmet(needs: list[Requirement], versions: Mapping[str, str | None]) -> list[str]:
    return [
        f"{need.name} {found or 'not installed'} (needs {need})"
        for need in needs
        if (found := versions[need.name]) is None or not need.specifier.contains(found, prereleases=True)
    ]
