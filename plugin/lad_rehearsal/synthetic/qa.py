"""Questions about synthetic images, and answers derived from the rendered scenes without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from lad_reasoner.task.task import ANOMALOUS, IMAGE_MARKER, NORMAL, Label, problem_text, prompt_text
from lad_rehearsal.synthetic.scenes import BLEMISHES, ROWS, SLOTS, Scene, compare, part_name

__all__ = ["DAMAGE_QUESTION", "PARTS_QUESTION", "damage_answer", "label_of", "pair_answer", "pair_question"]
__all__ += ["parts_answer", "plain_answers", "vocabulary"]

PARTS_QUESTION: Final = f"{IMAGE_MARKER}\nList the parts."
DAMAGE_QUESTION: Final = f"{IMAGE_MARKER}\nList the damage."


def _scan(words: Sequence[str]) -> str:
    """Return nine words as three named rows."""
    return " ".join(f"{row} {' '.join(words[3 * i : 3 * i + 3])}" for i, row in enumerate(ROWS))


def parts_answer(scene: Scene) -> str:
    """Return the part in each slot."""
    return _scan([part_name(part) for part in scene.parts])


def damage_answer(scene: Scene) -> str:
    """Return the damage of each slot."""
    return _scan([BLEMISHES[mark] or "ok" for mark in scene.blemishes])


def label_of(states: Sequence[str]) -> Label:
    """Return the label of a query from the states that ``compare`` returns."""
    return NORMAL if all(state == "ok" for state in states) else ANOMALOUS


def pair_question() -> str:
    """Return the user's turn of a pair, identical to that of GRPO and evaluation."""
    return prompt_text(problem_text())


def pair_answer(reference: Scene, query: Scene) -> str:
    """Return the scan of all slots and the verdict, in the task's template.

    Example:
        >>> pair_answer(Scene((0,) * 9), Scene((0,) * 9))
        '<think> top ok ok ok middle ok ok ok bottom ok ok ok </think><answer> no </answer>'
    """
    states = compare(reference, query)
    return f"<think> {_scan(states)} </think><answer> {label_of(states)} </answer>"


def plain_answers(reference: Scene, query: Scene) -> tuple[str, str]:
    """Return the same answer without the template and with half of it, like an untrained model's answers."""
    states = compare(reference, query)
    return f"{_scan(states)}. {label_of(states)}", f"<think> {_scan(states)} </think> {label_of(states)}"


def vocabulary() -> Iterator[str]:
    """Yield texts that contain every word of the questions and answers."""
    every_part = [part_name(part) for part in range(-1, 30)]
    yield from (PARTS_QUESTION, DAMAGE_QUESTION, pair_question())
    yield _scan(["ok"] * SLOTS)
    yield from (f" {word}" for word in [*every_part, "missing", "extra", "recoloured", "swapped", *BLEMISHES[1:]])
    yield from plain_answers(Scene((0,) * SLOTS), Scene((0,) * SLOTS))
    yield from plain_answers(Scene((0,) * SLOTS), Scene((1,) * SLOTS))
