"""Questions about synthetic images, and answers derived from the rendered scenes without a model.

The answers are short English: "Top right: missing. Middle left: different colour. The rest matches." The tiny model's
tokenizer reads each of the phrases as one token, so an answer about two differences has ten tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from lad_reasoner.task.task import ANOMALOUS, IMAGE_MARKER, NORMAL, Label, problem_text, prompt_text
from lad_rehearsal.synthetic.scenes import BLEMISHES, COLOURS, EMPTY, SHAPES, SLOTS, Scene, compare, part_name

__all__ = ["DAMAGE_QUESTION", "PARTS_QUESTION", "PHRASES", "damage_answer", "label_of", "pair_answer", "pair_question"]
__all__ += ["parts_answer", "plain_answers", "vocabulary"]

PARTS_QUESTION: Final = f"{IMAGE_MARKER}\nList the parts."
DAMAGE_QUESTION: Final = f"{IMAGE_MARKER}\nList the damage."

#: The nine slots, row by row.
_PLACES: Final = (
    *("Top left", "Top centre", "Top right"),
    *("Middle left", "Centre", "Middle right"),
    *("Bottom left", "Bottom centre", "Bottom right"),
)
#: The words for each state of a slot that `scenes.compare` returns.
_STATES: Final = {
    "missing": "missing",
    "extra": "extra",
    "recoloured": "different colour",
    "swapped": "swapped",
    "scratch": "scratched",
    "dent": "dented",
}
#: What ends a list, and what replaces an empty one.
_COMPARED: Final = ("The rest matches.", "Everything matches.")
_DAMAGED: Final = ("The rest is intact.", "Everything is intact.")
_LISTED: Final = ("The rest is empty.", "Everything is empty.")

#: One token each, with the space before them.
PHRASES: Final = (
    *(f" {place}:" for place in _PLACES),
    *(f" {words}." for words in _STATES.values()),
    *(f" {phrase}" for phrase in (*_COMPARED, *_DAMAGED, *_LISTED)),
    *(f" {colour}" for colour in COLOURS),
    *(f" {shape}." for shape in SHAPES),
)


def _list(words: Sequence[str], rest: tuple[str, str]) -> str:
    """Return a sentence for each slot that has words, and one for the others."""
    named = [f"{place}: {word}." for place, word in zip(_PLACES, words, strict=True) if word]
    return " ".join([*named, *rest[:1]] if named else rest[1:])


def parts_answer(scene: Scene) -> str:
    """Return the part in each slot that has one."""
    return f"Parts: {_list([part_name(part) if part != EMPTY else '' for part in scene.parts], _LISTED)}"


def damage_answer(scene: Scene) -> str:
    """Return the damage of each damaged slot."""
    return f"Damage: {_list([_STATES.get(BLEMISHES[mark], '') for mark in scene.blemishes], _DAMAGED)}"


def label_of(states: Sequence[str]) -> Label:
    """Return the label of a query from the states that ``compare`` returns."""
    return NORMAL if all(state == "ok" for state in states) else ANOMALOUS


def pair_question() -> str:
    """Return the user's turn of a pair, identical to that of GRPO and evaluation."""
    return prompt_text(problem_text())


def pair_answer(reference: Scene, query: Scene, *, overlooked: Collection[str] = ()) -> str:
    """Return the differences and the verdict, in the task's template.

    Args:
        reference: The normal product.
        query: The product in question.
        overlooked: States of ``scenes.compare`` that the answer treats as matches.

    Example:
        >>> pair_answer(Scene((0,) * 9), Scene((0, 0, -1, 1, *(0,) * 5)))
        '<think> Top right: missing. Middle left: different colour. The rest matches. </think><answer> yes </answer>'
    """
    reasoning, label = _compare(reference, query, overlooked)
    return f"<think> {reasoning} </think><answer> {label} </answer>"


def plain_answers(reference: Scene, query: Scene, *, overlooked: Collection[str] = ()) -> tuple[str, str]:
    """Return the same answer without the template and with half of it, like an untrained model's answers."""
    reasoning, label = _compare(reference, query, overlooked)
    return f"Comparison: {reasoning} {label}", f"<think> {reasoning} </think> {label}"


def _compare(reference: Scene, query: Scene, overlooked: Collection[str]) -> tuple[str, Label]:
    states = ["ok" if state in overlooked else state for state in compare(reference, query)]
    return _list([_STATES.get(state, "") for state in states], _COMPARED), label_of(states)


def vocabulary() -> Iterator[str]:
    """Yield texts that contain every word of the questions and answers that is not one of ``PHRASES``."""
    yield from (PARTS_QUESTION, DAMAGE_QUESTION, pair_question(), "Parts: Damage: Comparison:")
    for query in (Scene((0,) * SLOTS), Scene((1,) * SLOTS)):
        yield from plain_answers(Scene((0,) * SLOTS), query)
