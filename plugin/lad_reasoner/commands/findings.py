"""How the commands print the findings of `lad_reasoner.training.preflight`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from lad_reasoner.support.console import echo, make_console, print_json
from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.findings import Finding, by_severity, count_findings

__all__ = ["print_findings", "refuse_errors"]

_STYLES: Final = {"error": "red", "warning": "yellow", "note": "dim"}


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Print all findings on stderr, the errors first, and stop if there are errors.

    Raises:
        UsageError: At least one finding is an error; the exception counts them.
    """
    for finding in by_severity(findings):
        echo(finding, err=True)
    if errors := sum(finding.is_error for finding in findings):
        count, them = (f"{errors} errors", "them") if errors > 1 else ("1 error", "it")
        raise UsageError(f"{count} in the config", remedy=f"Correct {them}, or start nevertheless with --no-check")


def print_findings(findings: Sequence[Finding], *, checks: int, as_json: bool) -> None:
    """Print findings and the number of checks on stdout: a list, or JSON for programs."""
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    console = make_console(soft_wrap=True)
    for finding in findings:
        console.print(str(finding), style=_STYLES[finding.severity])
    count = Counter(finding.severity for finding in findings)
    console.print(f"{checks} checks, {count_findings(count['error'], count['warning'])}")
