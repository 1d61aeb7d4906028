"""Answers by class: normal, structural, or logical with the violated rule, instead of yes or no.

The task is that of Logical Anomaly Classification (LogiCls, arXiv 2602.03530). A gold answer asks for it with
``"answers": "classes"``; see docs/classes.md. Standard library only, as `lad_reasoner.task.rewards`.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final

from lad_reasoner.task.gold import CLASSES, Gold
from lad_reasoner.task.response import Response, answer_text, parse
from lad_reasoner.task.task import ANOMALOUS, NORMAL, Label
from lad_reasoner.task.violations import (
    LOGICAL_VIOLATIONS,
    NARROW_KINDS,
    SURFACE_VIOLATIONS,
    VIOLATIONS,
    gold_violations,
)

__all__ = [
    "CLASS_NAMES",
    "FAMILY_CREDIT",
    "class_credit",
    "class_label",
    "gold_classes",
    "read_class",
    "read_response",
    "right_answer",
    "settle",
    "wrong_answer",
]

_NORMAL: Final = "normal"
_STRUCTURAL: Final = "structural"
#: A logical anomaly whose violation is not stated.
_LOGICAL: Final = "logical"

#: Every class. A logical violation is a class of its own.
CLASS_NAMES: Final = (_NORMAL, _STRUCTURAL, *(name for name in VIOLATIONS if name in LOGICAL_VIOLATIONS), _LOGICAL)

#: What the right family (structural or logical) with the wrong violation earns. Our choice: half.
FAMILY_CREDIT: Final = 0.5

#: The longest answer that is read: a violation with the name of a part.
_LONGEST: Final = 80

#: Kinds (`lad_reasoner.task.task.KINDS`) of the two families; of "own", the defect's name decides.
_STRUCTURAL_KINDS: Final = frozenset({"structural", "appearance"})
_LOGICAL_KINDS: Final = frozenset({"logical", "number", "color", "existence", "functional"})


@lru_cache(maxsize=4096)
def read_class(answer: str) -> str | None:
    """Return the class that the words of an answer block state; None if they state none.

    Example:
        >>> read_class("logical: missing pushpin"), read_class("Normal"), read_class("yes")
        ('missing', 'normal', None)
        >>> read_class("logical: missing or extra")
        'logical'
    """
    if len(answer) > _LONGEST:
        return None
    family, _, rule = (part.strip() for part in answer.lower().partition(":"))
    if family == _NORMAL:
        return None if rule else _NORMAL
    if family == _STRUCTURAL:
        return _STRUCTURAL
    if family != _LOGICAL:
        return None
    words = rule.split()
    if "not" in words or any(
        before in {"no", "without"} and word in LOGICAL_VIOLATIONS for before, word in pairwise(words)
    ):
        return _LOGICAL  # "not missing" states no violation; "no pushpin" does
    named = {word for word in words if word in LOGICAL_VIOLATIONS} or (
        gold_violations("", rule)[0] & LOGICAL_VIOLATIONS
    )
    return min(named) if len(named) == 1 else _LOGICAL


def class_label(name: str | None) -> Label | None:
    """Return what a class is in the paper's answers: normal is no, every other class yes."""
    if name is None:
        return None
    return NORMAL if name == _NORMAL else ANOMALOUS


@lru_cache(maxsize=4096)
def gold_classes(label: Label, kind: str, defect: str) -> frozenset[str]:
    """Return the right classes of a query: several if it has several defects, none if its names state no family.

    Example:
        >>> sorted(gold_classes("yes", "logical", "missing_pushpin+wrong_color"))
        ['color', 'missing']
        >>> gold_classes("yes", "own", "batch_7")
        frozenset()
    """
    if label == NORMAL:
        return frozenset({_NORMAL})
    if kind in _STRUCTURAL_KINDS:
        return frozenset({_STRUCTURAL})
    named = gold_violations(kind if kind in NARROW_KINDS else "", defect)[0]
    if logical := named & LOGICAL_VIOLATIONS:
        return logical
    if kind in _LOGICAL_KINDS:
        return frozenset({_LOGICAL})
    return frozenset({_STRUCTURAL}) if named & SURFACE_VIOLATIONS else frozenset()


def settle(said: str | None, right: frozenset[str]) -> tuple[str, str | None]:
    """Return the right class and the stated one, as a confusion table counts them.

    Of several right classes the stated one counts. Where the data does not state the violation, every logical answer
    is right.
    """
    if right == {_LOGICAL} and said in LOGICAL_VIOLATIONS:
        said = _LOGICAL
    return (said if said in right else min(right, key=CLASS_NAMES.index)), said


def class_credit(said: str | None, right: frozenset[str]) -> float:
    """Return 1.0 for a right class, `FAMILY_CREDIT` for another violation of the right family, else 0.0.

    Example:
        >>> right = frozenset({"missing"})
        >>> [class_credit(said, right) for said in ("missing", "extra", "structural", None)]
        [1.0, 0.5, 0.0, 0.0]
    """
    truth, said = settle(said, right)
    if said == truth:
        return 1.0
    logical = LOGICAL_VIOLATIONS | {_LOGICAL}
    return FAMILY_CREDIT if said in logical and truth in logical else 0.0


def read_response(text: str, gold: Gold) -> Response:
    """Parse a response in the form that the gold answer asks for: a class is read as yes or no."""
    response = parse(text)
    return (
        response._replace(answer=class_label(read_class(answer_text(text)))) if gold.answers == CLASSES else response
    )


def right_answer(gold: Gold) -> str:
    """Return the words of an answer block that earn everything.

    Example:
        >>> right_answer(Gold("yes", "pushpins", "logical", "missing_pushpin", answers="classes"))
        'logical: missing'
    """
    if gold.choice is not None:
        return str(gold.choice["letter"])
    if gold.answers != CLASSES:
        return gold.label
    right = min(gold_classes(gold.label, gold.kind, gold.defect) or {_LOGICAL}, key=CLASS_NAMES.index)
    return f"{_LOGICAL}: {right}" if right in LOGICAL_VIOLATIONS else right


def wrong_answer(gold: Gold) -> str:
    """Return the words of an answer block that earn nothing, in the form that the gold answer asks for."""
    if gold.choice is not None:
        return "B" if gold.choice["letter"] == "A" else "A"
    if gold.answers != CLASSES:
        return NORMAL if gold.label == ANOMALOUS else ANOMALOUS
    return _NORMAL if gold.label == ANOMALOUS else _STRUCTURAL
