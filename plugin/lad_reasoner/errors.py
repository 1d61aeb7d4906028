"""Every error a user can cause, as one small tree.

    LadError                 exit 1   the root: catch this to catch them all
    ├── UsageError           exit 2   a wrong option, config key or combination of them
    ├── DataError            exit 1   a file or folder that is missing, broken or not what was expected
    └── RunError             exit 1   a trainer, server or stage that did not finish

Each carries one line that names where, what was found, what was expected and the remedy: no traceback is needed.
"""

from __future__ import annotations

__all__ = ["DataError", "LadError", "RunError", "UsageError"]


class LadError(Exception):
    """A fault that the user can mend.

    Args:
        where: The path, key or stage at fault.
        found: What was there.
        expected: What should have been there, if that is not plain.
        remedy: What to do about it, if that is not plain.

    Example:
        >>> print(DataError("pairs.parquet", found="no rows", expected="at least one pair", remedy="widen the recipe"))
        pairs.parquet: found no rows, expected at least one pair; widen the recipe
    """

    exit_code = 1

    def __init__(self, where: object, *, found: str, expected: str = "", remedy: str = "") -> None:
        self.where, self.found, self.expected, self.remedy = str(where), found, expected, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: found {self.found}"
        if self.expected:
            line += f", expected {self.expected}"
        if self.remedy:
            line += f"; {self.remedy}"
        return " ".join(line.split())


class UsageError(LadError):
    """A wrong option, config key or combination of them."""

    exit_code = 2


class DataError(LadError):
    """A file or folder that is missing, broken or not what was expected."""


class RunError(LadError):
    """A trainer, server or stage that did not finish."""
