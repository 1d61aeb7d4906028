"""`easyr1 check`: everything that would make a run fail, or train on nothing, found before it starts.

Each check is a small function of what is known beforehand (`Known`) and yields its findings; the tables of checks are
in `lad_reasoner.training.preflight`. Neither torch nor Ray is imported, and no image is decoded.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console

from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.findings import Finding, count_findings
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.easyr1.keys import Key
from lad_reasoner.training.installed import Trainer, has_gpu
from lad_reasoner.training.preflight import CHECKS
from lad_reasoner.training.preflight.algorithm import check_bounds
from lad_reasoner.training.preflight.context import Known

__all__ = ["print_findings", "refuse_errors", "require_bounds", "run_checks", "total_steps"]

#: The severities in their order, with their colours.
_STYLES: Final = {"error": "red", "warning": "yellow", "note": "dim"}


def run_checks(config: EasyR1Config, trainer: Trainer | None, keys: Mapping[str, Key]) -> list[Finding]:
    """Return what is wrong with a run: errors, warnings, then notes, each in the order of the checks."""
    known = Known(config=config, trainer=trainer, keys=keys, gpu=has_gpu())
    findings = [finding for check in CHECKS for finding in check(known)]
    return _sorted(findings)


def require_bounds(config: EasyR1Config) -> None:
    """Raise if a number of a config is out of range, so that no command is shown for it.

    Raises:
        UsageError: One is; the first is named.
    """
    for finding in check_bounds(Known(config=config, trainer=None, keys={}, gpu=False)):
        if finding.is_error:
            raise UsageError(finding.problem, where=finding.where, remedy=finding.remedy)


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    """Return errors, warnings, then notes."""
    return sorted(findings, key=lambda finding: list(_STYLES).index(finding.severity))


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Print all findings on stderr, the errors first, and stop if there are errors.

    Raises:
        UsageError: At least one finding is an error; the exception counts them.
    """
    for finding in _sorted(findings):
        print(finding, file=sys.stderr)
    if errors := sum(finding.is_error for finding in findings):
        count, them = (f"{errors} errors", "them") if errors > 1 else ("1 error", "it")
        raise UsageError(f"{count} in the config", remedy=f"Correct {them}, or start nevertheless with --no-check")


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print the findings on stdout: a table, or JSON for programs."""
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        console.print(str(finding), style=_STYLES[finding.severity], markup=False)
    count = Counter(finding.severity for finding in findings)
    console.print(f"{len(CHECKS)} checks, {count_findings(count['error'], count['warning'])}")


def total_steps(config: EasyR1Config) -> int | None:
    """Return how many steps the run has, or None where only the trainer can tell."""
    return Known(config=config, trainer=None, keys={}, gpu=False).total_steps
