"""What a build or check has to tell: each finding a line on stderr the moment it is made, and a count at the end."""

from __future__ import annotations

import sys
from collections import Counter

__all__ = ["Findings"]


class Findings:
    """A log of named findings, by kind.

    Args:
        quiet: Keep the lines without printing them.

    Attributes:
        counts: Findings of each kind.
        lines: Every line, in order.

    Example:
        >>> findings = Findings(quiet=True)
        >>> findings.add("repaired", "cable/test/good/001.png: EXIF rotation")
        >>> findings.summary()
        'repaired 1'
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: list[str] = []
        self._told: set[str] = set()
        self._quiet = quiet

    def add(self, kind: str, line: str) -> None:
        """Tell one finding; the same one again (a reference that is met twice) is not repeated."""
        if (told := f"{kind}: {line}") in self._told:
            return
        self._told.add(told)
        self.counts[kind] += 1
        self.lines.append(told)
        if not self._quiet:
            print(self.lines[-1], file=sys.stderr)

    def of(self, kind: str) -> list[str]:
        """Return the lines of one kind."""
        return [line for line in self.lines if line.startswith(f"{kind}: ")]

    def summary(self) -> str:
        """Return the counts in one line, or an empty text."""
        return ", ".join(f"{kind} {count}" for kind, count in sorted(self.counts.items()))
