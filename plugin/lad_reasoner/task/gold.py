"""The gold answer: what is true of a query, as the column ``answer`` of a pair parquet states it.

Two forms are valid everywhere: a bare ``yes`` or ``no``, as in EasyR1's usual parquet of three columns, and a JSON
object with a ``label``, as `lad build` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from lad_reasoner.task.boxes import Box
from lad_reasoner.task.task import LABELS, Label

__all__ = ["CLASSES", "YES_NO", "Gold", "read_gold"]

#: The forms of answers: yes or no as in the paper, or a class (`lad_reasoner.task.classes`).
YES_NO: Final = "yes-no"
CLASSES: Final = "classes"

_LABEL_OF: Final[dict[object, Label]] = {label: label for label in LABELS}


class Gold(NamedTuple):
    """A gold answer; what it does not state is empty.

    Attributes:
        label: "yes" if the query is anomalous.
        category: The product, such as "screw_bag".
        kind: One of ``task.KINDS``.
        defect: The dataset's own defect name(s).
        choice: The multiple-choice question, as stored; None for a question answered by yes or no.
        answers: The form of the answer: `YES_NO` or `CLASSES`.
        boxes: Where the anomaly is, as shares of the query's width and height; empty for a normal query, None if the
            response needs no box.
        size: Width and height of the query as stored; known where boxes are.
    """

    label: Label
    category: str = ""
    kind: str = ""
    defect: str = ""
    choice: Any = None
    answers: str = YES_NO
    boxes: tuple[Box, ...] | None = None
    size: tuple[int, int] = (0, 0)

    @property
    def prompt(self) -> str:
        """The name of the shipped format prompt that asks for this answer."""
        if self.choice is not None:
            return "choice"
        if self.answers == CLASSES:
            return "classes"
        return "rlad" if self.boxes is None else "boxes"


def read_gold(gold: str | Mapping[str, Any]) -> Gold:
    """Read a gold answer: the text of the column ``answer``, or the mapping that its JSON stands for.

    Raises:
        ValueError: It is neither a bare label nor an object with a label.

    Example:
        >>> from lad_reasoner.task.gold import read_gold
        >>> read_gold("yes").label, read_gold('{"label": "no", "category": "pushpins"}').category
        ('yes', 'pushpins')
    """
    return _read_text(gold) if isinstance(gold, str) else _read_object(gold, gold)


@lru_cache(maxsize=16384)  # the samples of a prompt, and every epoch, share a gold answer
def _read_text(gold: str) -> Gold:
    if label := _LABEL_OF.get(gold.strip()):
        return Gold(label)
    try:
        return _read_object(json.loads(gold), gold)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _unreadable(gold) from error


def _read_object(value: object, gold: object) -> Gold:
    """Return what an object states; ``gold`` is what the error shows."""
    if not isinstance(value, Mapping) or "label" not in value:
        raise _unreadable(gold)
    label = value["label"]
    if not isinstance(label, str) or label not in _LABEL_OF:
        raise ValueError(f"gold answer {gold!r:.200}: label is {label!r}, not {' or '.join(LABELS)}")
    category, kind, defect = (str(value.get(name) or "") for name in ("category", "kind", "defect"))
    choice, answers = value.get("choice"), value.get("answers", YES_NO)
    if choice is not None and not _is_choice(choice):
        raise ValueError(f"gold answer {gold!r:.200}: choice is not a question with its capital letter")
    if answers not in (YES_NO, CLASSES):
        raise ValueError(f"gold answer {gold!r:.200}: answers is {answers!r}, not {YES_NO} or {CLASSES}")
    return Gold(_LABEL_OF[label], category, kind, defect, choice, answers, *_boxes(value, gold))


def _is_choice(choice: object) -> bool:
    """Whether an object names one capital letter; its options, if it states them, are called so and include it."""
    if not isinstance(choice, Mapping):
        return False
    right = choice.get("letter")
    options = choice.get("options", [right])
    letters = list(options) if isinstance(options, Mapping | list) else []
    return right in letters and all(isinstance(letter, str) and re.fullmatch("[A-Z]", letter) for letter in letters)


def _boxes(value: Mapping[str, Any], gold: object) -> tuple[tuple[Box, ...] | None, tuple[int, int]]:
    """Return the boxes and the size that an object states."""
    if value.get("boxes") is None:
        return None, (0, 0)
    try:
        boxes = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in value["boxes"])
        width, height = value["size"]
        if all(0 <= side <= 1 for box in boxes for side in box) and min(int(width), int(height)) >= 1:
            return boxes, (int(width), int(height))
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"gold answer {gold!r:.200}: boxes must hold shares of the image, with its size")


def _unreadable(gold: object) -> ValueError:
    return ValueError(f'the gold answer {gold!r:.200} is not yes, no, or JSON such as {{"label": "yes"}}')
