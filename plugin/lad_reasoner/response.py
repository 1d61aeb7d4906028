"""The one parser of model responses: rewards and evaluation both use it, so that what is trained is what is measured.

It is total (any string gives a result, nothing raises), strict (docs/rewards.md lists every decision with its reason)
and linear in the length of the response.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from lad_reasoner.task import LABELS, Label

__all__ = ["Response", "parse"]

_TAG: Final = re.compile(r"</?(?:think|answer)>")

#: Any text without a tag of the template. Possessive, so that no text, however hostile, is read twice.
_UNTAGGED: Final = r"[^<]*+(?:<(?!/?(?:think|answer)>)[^<]*+)*+"
_TEMPLATE: Final = re.compile(rf"\s*+<think>({_UNTAGGED})</think>\s*+<answer>({_UNTAGGED})</answer>\s*+")

_LABEL_OF: Final[dict[str, Label]] = {label: label for label in LABELS}
_LONGEST_LABEL: Final = max(map(len, LABELS))


# A tuple, because a frozen dataclass takes twice as long to make, and a training step makes thousands.
class Response(NamedTuple):
    """What a model's text says.

    Attributes:
        reasoning: The text of the think block, stripped; empty where there is not exactly one.
        answer: "yes", "no", or None where the text does not hold exactly one readable answer.
        well_formed: Whether the text is one non-empty think block, one non-empty answer block, and nothing else.
    """

    reasoning: str
    answer: Label | None
    well_formed: bool


#: What a text without any tag says.
_NOTHING: Final = Response("", None, False)


def parse(text: str) -> Response:
    """Read a response.

    Example:
        >>> parse("<think> one pin is missing </think><answer> yes </answer>")
        Response(reasoning='one pin is missing', answer='yes', well_formed=True)
        >>> parse("yes").answer is None
        True
    """
    # Most responses of a trained model are one template; the tags are gone through only where that is not so.
    if template := _TEMPLATE.fullmatch(text):
        reasoning, answer = template[1].strip(), template[2].strip()
        return Response(reasoning, _label(answer), bool(reasoning and answer))
    tags = list(_TAG.finditer(text))
    if not tags:
        return _NOTHING
    return Response(_block(text, tags, "think"), _label(_block(text, tags, "answer")), False)


def _block(text: str, tags: list[re.Match[str]], name: str) -> str:
    """Return the text of the only block called ``name``; empty if none, several, or inside the other block."""
    opening, closing, names = f"<{name}>", f"</{name}>", [tag.group() for tag in tags]
    if names.count(opening) != 1 or names.count(closing) != 1:
        return ""
    place = names.index(opening)
    if names[place + 1 : place + 2] != [closing]:
        return ""
    if place and not names[place - 1].startswith("</"):  # inside a block of the other name
        return ""
    return text[tags[place].end() : tags[place + 1].start()].strip()


def _label(answer: str) -> Label | None:
    # lower(), not casefold(): casefold would turn look-alikes such as "ye\u017f" into a label.
    return _LABEL_OF.get(answer.lower()) if len(answer) <= _LONGEST_LABEL else None
