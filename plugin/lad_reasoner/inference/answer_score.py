"""A continuous score from a model that answers in words: P(yes) against P(no) where the answer stands."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Final

from lad_reasoner.task.response import parse
from lad_reasoner.task.task import ANOMALOUS, LABELS, NORMAL, Label

__all__ = [
    "answer_begin",
    "answer_step",
    "forced_text",
    "score_from_alternatives",
    "score_from_chances",
    "score_from_logs",
    "spelling_tokens",
    "spellings",
]

_OPENING: Final = "<answer>"


def spellings(label: Label) -> list[str]:
    """Return the ways to write an answer that are summed: three letter cases, each after white space or not.

    Example:
        >>> spellings("no")[:2], len(spellings("no"))
        (['no', ' no'], 9)
    """
    return [space + word for word in (label, label.capitalize(), label.upper()) for space in ("", " ", "\n")]


def spelling_tokens(tokenizer: Any, label: Label) -> list[int]:
    """Return the single tokens that spell an answer."""
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in spellings(label)]
    return sorted({ids[0] for ids in encoded if len(ids) == 1})


def score_from_logs(yes: float, no: float) -> float:
    """Return P(yes) / (P(yes) + P(no)) from the two logarithms.

    Example:
        >>> round(score_from_logs(math.log(0.3), math.log(0.1)), 12)
        0.75
    """
    difference = no - yes  # infinite where one of the two was ruled out
    return 1.0 / (1.0 + math.exp(difference)) if difference < 700 else 0.0


def score_from_alternatives(alternatives: Iterable[tuple[str, float]]) -> float | None:
    """Return the score from the next tokens that a server lists, ``(text, log P)``; None if none spells an answer.

    A spelling that is not listed counts as 0: it is less likely than every one that is.

    Example:
        >>> score_from_alternatives([(" yes", math.log(0.5)), ("Yes", math.log(0.25)), ("no", math.log(0.25))])
        0.75
    """
    chances: dict[str, float] = dict.fromkeys(LABELS, 0.0)
    for text, log in alternatives:
        word = text.strip().lower()
        if word in chances:
            chances[word] += math.exp(log)
    return score_from_chances(chances[ANOMALOUS], chances[NORMAL])


def score_from_chances(yes: float, no: float) -> float | None:
    """Return P(yes) / (P(yes) + P(no)); None if both are 0.

    Example:
        >>> score_from_chances(0.3, 0.1), score_from_chances(0.0, 0.0)
        (0.7499999999999999, None)
    """
    return yes / (yes + no) if yes + no else None


def answer_begin(text: str) -> int | None:
    """Return where in a response the answer's word begins; None if it has no answer.

    Example:
        >>> answer_begin("<think> ok </think><answer> no </answer>"), answer_begin("no")
        (28, None)
    """
    if parse(text).answer is None:
        return None
    block = text.index(_OPENING) + len(_OPENING)
    return len(text) - len(text[block:].lstrip())


def answer_step(tokens: Sequence[int], text: str, tokenizer: Any) -> int | None:
    """Return the index of the token in which the answer's word begins; None if the response has no answer.

    ``text`` is the response decoded without special tokens.
    """
    begin = answer_begin(text)
    if begin is None:
        return None
    # The first token after which the text reaches past the word's first letter.
    return bisect_right(
        range(len(tokens)), begin, key=lambda last: len(tokenizer.decode(tokens[: last + 1], skip_special_tokens=True))
    )


def forced_text(response: str) -> str:
    """Return a response without an answer, cut or closed so that the next word is the answer.

    Example:
        >>> forced_text("<think> a pin is missing")
        '<think> a pin is missing</think><answer>'
        >>> forced_text("<think> all there </think><answer> maybe </answer>")
        '<think> all there </think><answer>'
    """
    reasoning = response.split(_OPENING, 1)[0].rstrip()
    is_open = reasoning.rfind("<think>") > reasoning.rfind("</think>")
    return f"{reasoning}{'</think>' if is_open else ''}{_OPENING}"
