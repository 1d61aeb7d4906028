"""The one parser of model responses: rewards and evaluation both use it, so that what is trained is what is measured.

It is total (any string gives a result, nothing raises), strict (docs/rewards.md lists every decision with its reason)
and linear in the length of the response.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lad_reasoner.task import LABELS, Label

__all__ = ["Response", "parse"]

_TAG: Final = re.compile(r"</?(?:think|answer)>")
_TEMPLATE: Final = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True, slots=True)
class Response:
    """What a model's text says.

    Attributes:
        reasoning: The text of the think block, stripped; empty where there is not exactly one.
        answer: "yes", "no", or None where the text does not hold exactly one readable answer.
        well_formed: Whether the text is one non-empty think block, one non-empty answer block, and nothing else.
    """

    reasoning: str
    answer: Label | None
    well_formed: bool


def parse(text: str) -> Response:
    """Read a response.

    Example:
        >>> parse("<think> one pin is missing </think><answer> yes </answer>")
        Response(reasoning='one pin is missing', answer='yes', well_formed=True)
        >>> parse("yes").answer is None
        True
    """
    tags = list(_TAG.finditer(text))
    names = tuple(tag.group() for tag in tags)
    reasoning, answer = _block(text, tags, "think"), _block(text, tags, "answer")
    well_formed = bool(reasoning) and bool(answer) and names == _TEMPLATE and not _outside(text, tags)
    return Response(reasoning=reasoning, answer=_label(answer), well_formed=well_formed)


def _outside(text: str, tags: list[re.Match[str]]) -> str:
    """Return what stands before, between and after the two blocks of a template-shaped text, stripped."""
    return (text[: tags[0].start()] + text[tags[1].end() : tags[2].start()] + text[tags[3].end() :]).strip()


def _block(text: str, tags: list[re.Match[str]], name: str) -> str:
    """Return the text of the only block called ``name``; empty if none, several, or inside the other block."""
    own = [i for i, tag in enumerate(tags) if tag.group().strip("</>") == name]
    if len(own) != 2 or own[1] != own[0] + 1:
        return ""
    opening, closing = own
    if tags[opening].group() != f"<{name}>" or tags[closing].group() != f"</{name}>":
        return ""
    if opening and not tags[opening - 1].group().startswith("</"):  # inside a block of the other name
        return ""
    return text[tags[opening].end() : tags[closing].start()].strip()


def _label(answer: str) -> Label | None:
    # lower(), not casefold(): casefold would turn look-alikes such as "ye\u017f" into a label.
    word = answer.lower() if len(answer) <= 3 else ""
    return next((label for label in LABELS if word == label), None)
