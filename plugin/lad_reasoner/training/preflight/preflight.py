"""`easyr1 check`: everything that would make a run fail, or train on nothing, found before it starts.

Each check is a small function of what is known beforehand (`Known`) and yields its findings; the tables of checks are
in `lad_reasoner.training.preflight`. Neither torch nor Ray is imported, and no image is decoded.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console

from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.findings import Finding
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.easyr1.keys import Key
from lad_reasoner.training.installed import Trainer, has_gpu
from lad_reasoner.training.preflight import CHECKS
from lad_reasoner.training.preflight.context import Known

__all__ = ["print_findings", "refuse_errors", "run_checks", "total_steps"]

#: The severities in their order, with their colours.
_STYLES: Final = {"error": "red", "warning": "yellow", "note": "dim"}


def run_checks(config: EasyR1Config, trainer: Trainer | None, keys: Mapping[str, Key]) -> list[Finding]:
    """Return what is wrong with a run: errors, warnings, then notes, each in the order of the checks."""
    known = Known(config=config, trainer=trainer, keys=keys, gpu=has_gpu())
    findings = [finding for check in CHECKS for finding in check(known)]
    return sorted(findings, key=lambda finding: list(_STYLES).index(finding.severity))


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Say the warnings and notes on stderr, and stop at errors.

    Raises:
        UsageError: At least one finding is an error; it is the first one, and the others are printed before.
    """
    errors = [finding for finding in findings if finding.is_error]
    for finding in findings:
        if finding not in errors[:1]:
            print(finding, file=sys.stderr)
    if errors:
        first = errors[0]
        remedy = (
            f"{first.remedy}. --no-check starts nevertheless" if first.remedy else "--no-check starts nevertheless"
        )
        raise UsageError(first.problem, where=first.where, remedy=remedy)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print the findings on stdout: a table, or JSON for programs."""
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        console.print(str(finding), style=_STYLES[finding.severity], markup=False)
    count = Counter(finding.severity for finding in findings)
    console.print(f"{len(CHECKS)} checks, {count['error']} errors, {count['warning']} warnings")


def total_steps(config: EasyR1Config) -> int | None:
    """Return how many steps the run has, or None where only the trainer can tell."""
    return Known(config=config, trainer=None, keys={}, gpu=False).total_steps
