"""Findings of a build or check: each is logged as it is made, and counted for the end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from lad_reasoner.support.errors import as_sentences
from lad_reasoner.support.visible import visible

__all__ = ["Finding", "Findings", "by_severity", "count_findings", "error", "note", "warning"]

_SEVERITIES: Final = ("error", "warning", "note")

#: What may concern every photo and needs no action: so many are logged one by one, and a line announces the rest.
_NO_ACTION: Final = "repaired"
_LISTED: Final = 3
_REST: Final = (
    f"{_NO_ACTION}: further images are counted, not listed. "
    "The output has upright, readable copies; your files are unchanged"
)

_log = logging.getLogger("lad_reasoner.findings")


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    Attributes:
        severity: An error ends the run or makes it worthless; a warning is a likely mistake; a note is no fault.
        where: The config key or path at fault.
        problem: What is wrong, as a sentence without its full stop.
        remedy: What to do, as a sentence without its full stop; empty if that is obvious.
    """

    severity: Literal["error", "warning", "note"]
    where: str
    problem: str
    remedy: str = ""

    @property
    def is_error(self) -> bool:
        """Whether it must stop the run."""
        return self.severity == "error"

    def __str__(self) -> str:
        return visible(as_sentences(f"{self.severity}: {self.where}: {self.problem}", self.remedy), one_line=True)


def error(where: object, problem: str, *, remedy: str = "") -> Finding:
    """Return a finding that must stop the run."""
    return Finding("error", str(where), problem, remedy)


def warning(where: object, problem: str, *, remedy: str = "") -> Finding:
    """Return a finding about a likely mistake."""
    return Finding("warning", str(where), problem, remedy)


def note(where: object, problem: str, *, remedy: str = "") -> Finding:
    """Return information about something that is not wrong."""
    return Finding("note", str(where), problem, remedy)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return errors, warnings, then notes, each in their order."""
    return sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity))


def count_findings(errors: int, warnings: int) -> str:
    """Return the numbers of errors and warnings in words.

    Example:
        >>> count_findings(1, 0)
        '1 error, 0 warnings'
    """
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


class Findings:
    """A log of named findings, by kind.

    Args:
        quiet: Keep the lines without logging them.
        of: Whose findings they are, where two files are written at once; it begins every line.

    Attributes:
        counts: Findings of each kind.
        lines: Every line, in order.

    Example:
        >>> findings = Findings(quiet=True)
        >>> findings.add("repaired", "cable/test/good/001.png: EXIF rotation")
        >>> findings.summary()
        'repaired 1'
    """

    def __init__(self, *, quiet: bool = False, of: str = "") -> None:
        self.counts: Counter[str] = Counter()
        self.lines: list[str] = []
        self._told: set[str] = set()
        self._quiet = quiet
        self._of = f"{of}: " if of else ""

    def add(self, kind: str, line: str) -> None:
        """Add a finding; one that was added before (a reference that is used twice) is ignored."""
        if (told := visible(f"{kind}: {self._of}{line}", one_line=True)) in self._told:
            return
        self._told.add(told)
        self.counts[kind] += 1
        self.lines.append(told)
        beyond = self.counts[kind] - _LISTED if kind == _NO_ACTION else 0
        if not self._quiet and beyond <= 1:
            _log.warning(_REST if beyond == 1 else told)

    def of(self, kind: str) -> list[str]:
        """Return the lines of one kind."""
        return [line for line in self.lines if line.startswith(f"{kind}: ")]

    def summary(self) -> str:
        """Return the counts in one line, or an empty text."""
        return ", ".join(f"{kind} {count}" for kind, count in sorted(self.counts.items()))
