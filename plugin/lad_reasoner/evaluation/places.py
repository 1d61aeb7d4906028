"""Words for a place in the query, against where its anomaly is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from lad_reasoner.pairs.masks import query_area
from lad_reasoner.task.gold import Gold

__all__ = ["anomaly_centre", "check_places", "find_places"]

_SIDE: Final = r"(?P<side>left|right)"
_AREA: Final = r"(?:side|half|third|part|corner|edge|end|row|column|compartment|area|region|slot|hand)s?"
#: "right" is also correct, "left" also remaining, and "lower" also less: each counts only next to words of a place.
_PLACE: Final = re.compile(
    rf"\b(?:(?P<both>top|upper|bottom|lower|middle|center)[ -](?P<with>left|right|middle|center)\b"
    rf"|(?:upper|lower)(?= {_AREA}\b)|(?:top|bottom)\b(?! labels?\b)|middle\b|center\b"
    rf"|(?:on|to|at|in|from|towards?|of) (?:the|its) (?:far |very )?{_SIDE}\b"
    r"(?! (?:place|number|color|type|kind|position)\b)"
    rf"|(?:left|right)(?= {_AREA}\b))"
)
_WORDS: Final = {"upper": "top", "lower": "bottom", "center": "middle"}


def find_places(sentence: str) -> set[str]:
    """Return the places that a sentence names: left, right, top, bottom or middle; opposite ones cancel.

    Example:
        >>> sorted(find_places("a pin is missing in the lower left compartment, not the right number"))
        ['bottom', 'left']
    """
    found: set[str] = set()
    for match in _PLACE.finditer(sentence.lower().replace("centre", "center")):
        words = [match["both"], match["with"], match["side"]]
        words = [word for word in words if word] or [match[0]]
        found |= {_WORDS.get(word, word) for word in words}
    # "from left to right" and a scan of all rows claim no place.
    across, down = {"left", "right"} <= found, {"top", "bottom"} <= found
    return (
        found - ({"left", "right", "middle"} if across else set()) - ({"top", "bottom", "middle"} if down else set())
    )


def check_places(sentences: Iterable[str], centre: tuple[float, float]) -> tuple[float, float]:
    """Return how many named places are right, and how many are named; each place of a text counts once.

    Left, top, right and bottom are the outer thirds of the picture; middle is right if the centre lies in the middle
    third of its width or height.
    """
    named = set().union(*map(find_places, sentences))
    across = ("left", "middle", "right")[min(int(3 * centre[0]), 2)]
    down = ("top", "middle", "bottom")[min(int(3 * centre[1]), 2)]
    return float(len(named & {across, down})), float(len(named))


@lru_cache(maxsize=4096)
def anomaly_centre(query_path: str, gold: Gold, masks: Path | None) -> tuple[float, float] | None:
    """Return the centre of an anomaly as shares of width and height: of its mask, else of its boxes; None without.

    Raises:
        DataError: A mask cannot be read.
    """
    import numpy as np

    if masks and (area := query_area(masks, query_path)) is not None and area.any():
        rows, columns = np.nonzero(area)
        return float((columns.mean() + 0.5) / area.shape[1]), float((rows.mean() + 0.5) / area.shape[0])
    if not gold.boxes:
        return None
    weights = [(right - left) * (bottom - top) for left, top, right, bottom in gold.boxes]
    across = sum(w * (box[0] + box[2]) / 2 for w, box in zip(weights, gold.boxes, strict=True))
    down = sum(w * (box[1] + box[3]) / 2 for w, box in zip(weights, gold.boxes, strict=True))
    return (across / sum(weights), down / sum(weights)) if sum(weights) else None
