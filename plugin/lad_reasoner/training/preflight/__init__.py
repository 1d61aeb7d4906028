"""`easyr1 check`: everything that would make a run fail, or train on nothing, found before it starts.

Each check is a small function of what is known beforehand (`Known`) and yields its findings. Neither torch nor Ray is
imported, and no image is decoded.
"""

from __future__ import annotations

from typing import Final

from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.findings import Finding, by_severity
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.installed import Trainer, has_gpu
from lad_reasoner.training.preflight.algorithm import ALGORITHM_CHECKS, check_bounds
from lad_reasoner.training.preflight.context import Check, Known
from lad_reasoner.training.preflight.data import DATA_CHECKS
from lad_reasoner.training.preflight.files import FILE_CHECKS
from lad_reasoner.training.preflight.machine import MACHINE_CHECKS
from lad_reasoner.training.preflight.reward import REWARD_CHECKS
from lad_reasoner.training.preflight.run import RUN_CHECKS

__all__ = ["CHECKS", "require_bounds", "run_checks", "total_steps"]

#: The checks in the order in which they are reported.
CHECKS: Final[tuple[Check, ...]] = (
    *FILE_CHECKS,
    *REWARD_CHECKS,
    *DATA_CHECKS,
    *ALGORITHM_CHECKS,
    *RUN_CHECKS,
    *MACHINE_CHECKS,
)


def run_checks(config: EasyR1Config, trainer: Trainer | None) -> list[Finding]:
    """Return what is wrong with a run: errors, warnings, then notes, each in the order of the checks."""
    known = Known(config, trainer, gpu=has_gpu())
    findings = [finding for check in CHECKS for finding in check(known)]
    return by_severity(findings)


def require_bounds(config: EasyR1Config) -> None:
    """Raise if a number of a config is out of range, so that no command is shown for it.

    Raises:
        UsageError: One is; the first is named.
    """
    for finding in check_bounds(Known(config)):
        if finding.is_error:
            raise UsageError(finding.problem, where=finding.where, remedy=finding.remedy)


def total_steps(config: EasyR1Config) -> int | None:
    """Return how many steps the run has, or None where only the trainer can tell."""
    return Known(config).total_steps
