"""Load an EasyR1 reward file (``path.py:function``) as EasyR1 does, and call it with its own convention."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from lad_reasoner.support.errors import DataError, UsageError

__all__ = ["MODULE_NAME", "RewardFile", "load_reward", "split_reward"]

#: EasyR1 imports the file under this name, so relative imports fail there and here.
MODULE_NAME: Final = "custom_reward_fn"


@dataclass(frozen=True, slots=True)
class RewardFile:
    """A loaded reward function.

    Attributes:
        function: The function of the file.
        kind: The file's ``REWARD_TYPE``: the function scores a list of rows ("batch") or one row ("sequential").
    """

    function: Callable[..., Any]
    kind: Literal["batch", "sequential"]

    def score(self, rows: Sequence[Mapping[str, Any]], **kwargs: Any) -> list[dict[str, float]]:
        """Score rows of ``response``, ``response_length`` and ``ground_truth``."""
        if self.kind == "batch":
            return list(self.function(list(rows), **kwargs))
        return [self.function(row, **kwargs) for row in rows]


def split_reward(value: str) -> tuple[Path, str]:
    """Split ``path.py:function``; the function is ``main`` if none is named.

    Example:
        >>> split_reward("reward.py")
        (PosixPath('reward.py'), 'main')
    """
    path, colon, name = value.rpartition(":")
    return (Path(path), name) if colon else (Path(value), "main")


@cache
def load_reward(value: str) -> RewardFile:
    """Import the reward file.

    Raises:
        DataError: The file is missing or does not import.
        UsageError: It lacks the function, or its REWARD_TYPE is unknown.
    """
    path, name = split_reward(value)
    if not path.is_file():
        raise DataError("there is no such reward file", where=path, remedy="Correct worker.reward.reward_function")
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise DataError("the name of a reward file must end in .py", where=path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        raise DataError(f"the import fails with {type(error).__name__}: {error}", where=path) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"it has no function {name}", where=path, remedy="Name it as path.py:function")
    kind: object = getattr(module, "REWARD_TYPE", "batch")
    if kind == "batch" or kind == "sequential":  # noqa: PLR1714 - mypy narrows this form only
        return RewardFile(function, kind)
    raise UsageError(f"REWARD_TYPE is {kind!r}", where=path, remedy="Set it to 'batch' or 'sequential'")
