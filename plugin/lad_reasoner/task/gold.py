"""The gold answer: what is true of a query, as the column ``answer`` of a pair parquet states it.

Two forms are valid everywhere: a bare ``yes`` or ``no``, as in EasyR1's usual parquet of three columns, and a JSON
object with a ``label``, as `lad build` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from lad_reasoner.task.task import LABELS, Label

__all__ = ["CLASSES", "YES_NO", "Gold", "read_gold"]

#: The forms of answers: yes or no as in the paper, or a class (`lad_reasoner.task.classes`).
YES_NO: Final = "yes-no"
CLASSES: Final = "classes"

_EXPECTED: Final = 'expected yes, no, or JSON such as {"label": "yes"}'
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
    """

    label: Label
    category: str = ""
    kind: str = ""
    defect: str = ""
    choice: Any = None
    answers: str = YES_NO


def read_gold(gold: str | Mapping[str, Any]) -> Gold:
    """Read a gold answer.

    Args:
        gold: The column ``answer``, or the mapping that its JSON stands for.

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
    if choice is not None and not (isinstance(choice, Mapping) and isinstance(choice.get("letter"), str)):
        raise ValueError(f"gold answer {gold!r:.200}: choice is not a question with its letter")
    if answers not in (YES_NO, CLASSES):
        raise ValueError(f"gold answer {gold!r:.200}: answers is {answers!r}, not {YES_NO} or {CLASSES}")
    return Gold(_LABEL_OF[label], category, kind, defect, choice, answers)


def _unreadable(gold: object) -> ValueError:
    return ValueError(f"gold answer {gold!r:.200}: {_EXPECTED}")
