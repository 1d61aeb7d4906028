"""Boxes in the reasoning: ``<box>[x1, y1, x2, y2]</box>`` says where in the query the anomaly is.

Standard library only. Coordinates are the model's own until `scale_boxes` relates them to the image; docs/boxes.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["MOST_BOXES", "Box", "box_reward", "iou", "match_boxes", "read_boxes", "scale_boxes"]

#: Left, top, right and bottom.
Box = tuple[float, float, float, float]

#: Boxes of a response that are read; whoever states more is guessing. Our choice.
MOST_BOXES: Final = 8

# Possessive: endless white space is read once, not once for each of its characters.
_NUMBER: Final = r"\s*+(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)\s*+"
_BOX: Final = re.compile(rf"<box>\s*+[\[(]?{','.join([_NUMBER] * 4)}[\])]?\s*+</box>")


def read_boxes(text: str) -> tuple[Box, ...]:
    """Return the boxes that a response states, in the model's coordinates.

    Example:
        >>> read_boxes("<think> a pin is gone <box>[10, 20, 30, 40]</box></think><answer> yes </answer>")
        ((10.0, 20.0, 30.0, 40.0),)
    """
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in _BOX.findall(text))


def scale_boxes(boxes: Sequence[Box], frame: tuple[int, int]) -> tuple[Box, ...]:
    """Return boxes of a frame of ``width`` x ``height`` as shares of it.

    Example:
        >>> scale_boxes([(10.0, 20.0, 30.0, 40.0)], (100, 200))
        ((0.1, 0.1, 0.3, 0.2),)
    """
    width, height = frame
    return tuple((left / width, top / height, right / width, bottom / height) for left, top, right, bottom in boxes)


def iou(first: Box, second: Box) -> float:
    """Return the intersection of two boxes over their union; 0.0 for a box without an area.

    Example:
        >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
        0.3333333333333333
    """
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    if min(width, height) <= 0 or min(areas) <= 0:
        return 0.0
    return width * height / (sum(areas) - width * height)


def match_boxes(stated: Sequence[Box], gold: Sequence[Box]) -> float:
    """Return the IoU of stated and right boxes: of the best pairs, divided by the larger number of boxes.

    The pair with the largest IoU is matched first, each box once. A box too many or too few lowers the result. More
    than `MOST_BOXES` stated boxes earn nothing.
    """
    if not stated or not gold or len(stated) > MOST_BOXES:
        return 0.0
    pairs = sorted(((iou(a, b), i, j) for i, a in enumerate(stated) for j, b in enumerate(gold)), reverse=True)
    total, used_stated, used_gold = 0.0, set[int](), set[int]()
    for value, i, j in pairs:
        if i not in used_stated and j not in used_gold:
            total += value
            used_stated.add(i)
            used_gold.add(j)
    return total / max(len(stated), len(gold))


def box_reward(stated: Sequence[Box], gold: Sequence[Box]) -> float:
    """Return `match_boxes` for an anomalous query, and for a normal one (no right box) 1.0 if no box is stated."""
    return match_boxes(stated, gold) if gold else float(not stated)
