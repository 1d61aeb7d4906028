"""Shares and their differences as text, in one way everywhere."""

from __future__ import annotations

import math

__all__ = ["percent", "points"]


def percent(value: float | None) -> str:
    """Return a share as the paper prints it: percent, one decimal, halves up (its 56.3 is 56.25).

    Example:
        >>> percent(0.60387), percent(0.5625), percent(None)
        ('60.4', '56.3', 'n/a')
    """
    return "n/a" if value is None else f"{math.floor(1000 * value + 0.5) / 10:.1f}"


def points(value: float | None) -> str:
    """Return a difference of two shares in percent points, with its sign.

    Example:
        >>> points(0.0213), points(-0.2327), points(0.0), points(None)
        ('+2.1', '-23.3', '0.0', 'n/a')
    """
    text = percent(value)
    return f"+{text}" if value is not None and not text.startswith("-") and text != "0.0" else text
