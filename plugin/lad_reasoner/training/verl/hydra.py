"""Write overrides as words of Hydra's command line."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["NEW_KEY", "as_words", "lay_over"]

#: Opens the name of a key that verl's config does not have.
NEW_KEY = "++"


def as_words(overrides: Mapping[str, object]) -> list[str]:
    """Return ``key=value`` words that Hydra reads back as the same values.

    Example:
        >>> as_words({"trainer.logger": ["file"], "++data.path": "a b", "trainer.total_training_steps": None})
        ['trainer.logger=["file"]', '++data.path="a b"', 'trainer.total_training_steps=null']
    """
    return [f"{key}={_value(value)}" for key, value in overrides.items()]


def lay_over(base: Mapping[str, object], top: Mapping[str, object]) -> dict[str, object]:
    """Return ``base`` with ``top`` laid over it; the mark of a new key does not make it another key.

    Example:
        >>> lay_over({"++a": 1, "b": 2}, {"a": 3})
        {'b': 2, 'a': 3}
    """
    names = {key.removeprefix(NEW_KEY) for key in top}
    return {key: value for key, value in base.items() if key.removeprefix(NEW_KEY) not in names} | dict(top)


def _value(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case Mapping():
            return "{" + ",".join(f"{key}:{_value(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(_value(item) for item in value) + "]"
        case _:
            return _quoted(str(value))


def _quoted(text: str) -> str:
    # Backslashes count only before a quote; a dollar and brace would be read as an interpolation.
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ("\\" * bool(found[2])) + found[2], text)
    return '"' + escaped.replace("${", "\\${") + '"'
