"""Every error a user can cause, as one small tree.

    LadError                 exit 1   the root: catch this to catch them all
    ├── UsageError           exit 2   a wrong option, config key or combination of them
    ├── DataError            exit 1   a file or folder that is missing, broken or not what was expected
    └── RunError             exit 1   a trainer, server or stage that did not finish

Each prints as one or two sentences: where, what is wrong, what to do. No traceback is needed.
"""

from __future__ import annotations

from lad_reasoner.support.visible import visible

__all__ = ["DataError", "LadError", "RunError", "UsageError", "as_sentences", "install_hint"]


class LadError(Exception):
    """A fault that the user can fix.

    Args:
        problem: What is wrong, as a sentence without its full stop.
        where: The path, option, key or stage at fault, if the sentence does not name it.
        remedy: What to do, as a sentence without its full stop.

    Example:
        >>> from lad_reasoner.support.errors import DataError
        >>> print(DataError("the file has no rows", where="pairs.parquet", remedy="Use a wider recipe"))
        pairs.parquet: the file has no rows. Use a wider recipe.
    """

    exit_code = 1

    def __init__(self, problem: object, *, where: object = "", remedy: str = "") -> None:
        self.where, self.problem, self.remedy = str(where), str(problem), remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.problem}" if self.where else self.problem
        return visible(" ".join(as_sentences(line, self.remedy).split()))


class UsageError(LadError):
    """A wrong option, config key or combination of them."""

    exit_code = 2


class DataError(LadError):
    """A file or folder that is missing, broken or not what was expected."""


class RunError(LadError):
    """A trainer, server or stage that did not finish."""


def as_sentences(problem: str, remedy: str = "") -> str:
    """Return a problem and its remedy as they are printed.

    Example:
        >>> as_sentences("the file has no rows", "Use a wider recipe")
        'the file has no rows. Use a wider recipe.'
    """
    return f"{problem}. {remedy}{'' if remedy.endswith('?') else '.'}" if remedy else problem


def install_hint(*extras: str) -> str:
    """Return the remedy for missing packages: the command that installs one of these extras.

    Example:
        >>> install_hint("vllm", "easyr1")
        "In the checkout, run: pip install '.[vllm]' or pip install '.[easyr1]'"
    """
    return "In the checkout, run: " + " or ".join(f"pip install '.[{extra}]'" for extra in extras)
