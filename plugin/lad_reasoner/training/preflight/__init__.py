"""The checks before a run, in the order in which they are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from lad_reasoner.support.findings import Finding
from lad_reasoner.training.preflight.algorithm import ALGORITHM_CHECKS
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.preflight.data import DATA_CHECKS
from lad_reasoner.training.preflight.files import FILE_CHECKS
from lad_reasoner.training.preflight.machine import MACHINE_CHECKS
from lad_reasoner.training.preflight.reward import REWARD_CHECKS
from lad_reasoner.training.preflight.run import RUN_CHECKS

__all__ = ["CHECKS"]

CHECKS: Final[tuple[Callable[[Known], Iterator[Finding]], ...]] = (
    *FILE_CHECKS,
    *REWARD_CHECKS,
    *DATA_CHECKS,
    *ALGORITHM_CHECKS,
    *RUN_CHECKS,
    *MACHINE_CHECKS,
)
