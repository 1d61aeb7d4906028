"""The parser of model responses. Rewards and evaluation both use it, so training and measurement agree.

It is total (every string gives a result), strict (docs/rewards.md lists every decision with its reason) and linear in
the length of the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from lad_reasoner.support.errors import UsageError
from lad_reasoner.task.task import LABELS, Label

__all__ = ["Response", "answer_text", "parse", "read_outcome", "template_regex"]

#: The template's tags, in its order.
_TAGS: Final = ("<think>", "</think>", "<answer>", "</answer>")
_OPENING: Final = _TAGS[0]

#: The longest template without its reasoning; each character may take a token, and so does the end of the response.
_FRAME: Final = len("<think></think><answer> yes </answer>") + 1

#: Longest ending (the tags and an answer of a few words) that is cached.
_LONGEST_ENDING: Final = 64

_LABEL_OF: Final[dict[str, Label]] = {label: label for label in LABELS}
_LONGEST_LABEL: Final = max(map(len, LABELS))


# A tuple, because a frozen dataclass takes twice as long to create, and a training step creates thousands.
class Response(NamedTuple):
    """A parsed response.

    Attributes:
        reasoning: Stripped text of the think block; empty unless there is exactly one.
        answer: "yes", "no", or None unless the text has exactly one readable answer.
        well_formed: Whether the text is a non-empty think block, a non-empty answer block, and nothing else.
    """

    reasoning: str
    answer: Label | None
    well_formed: bool


#: Placeholder for reasoning that the caller does not need.
_WORDS: Final = "-"

#: The result for a text without any tag.
_NOTHING: Final = Response("", None, False)


def parse(text: str) -> Response:
    """Read a response.

    Example:
        >>> parse("<think> one pin is missing </think><answer> yes </answer>")
        Response(reasoning='one pin is missing', answer='yes', well_formed=True)
        >>> parse("yes").answer is None
        True
    """
    said = read_outcome(text)
    if said.reasoning != _WORDS or not text.startswith(_OPENING):
        return said
    start = len(_OPENING)
    return said._replace(reasoning=text[start : _next_tag(text, start)].strip())


def read_outcome(text: str) -> Response:
    """Like `parse`, but faster: the reasoning may be a placeholder. Use it if only answer and format matter.

    Example:
        >>> read_outcome("<think> one pin is missing </think><answer> yes </answer>")
        Response(reasoning='-', answer='yes', well_formed=True)
    """
    if not isinstance(text, str):
        raise TypeError(f"a response is text, not {type(text).__name__}")
    start = len(_OPENING) if text.startswith(_OPENING) else 0
    end = _next_tag(text, start)
    if end < 0:
        return _NOTHING
    if len(text) - end > _LONGEST_ENDING:
        return _read(text)
    # Responses differ in the words before their first (other) tag, but there are only a few endings.
    return _read_ending(start, end > start and not text[start:end].isspace(), text[end:])


@lru_cache(maxsize=1024)
def _read_ending(start: int, words: bool, ending: str) -> Response:
    """Parse an ending, with a placeholder for the words before it."""
    return _read(f"{_OPENING[:start]}{_WORDS * words}{ending}")


def _next_tag(text: str, start: int) -> int:
    """Return the position of the next tag of the template, -1 if there is none."""
    # find() skips to a letter many times faster than a regular expression does.
    place = text.find("<", start)
    while place >= 0 and not text.startswith(_TAGS, place):
        place = text.find("<", place + 1)
    return place


def answer_text(text: str) -> str:
    """Return the stripped text of the answer block; empty where `parse` reads no answer block.

    Example:
        >>> answer_text("<think> a pin is gone </think><answer> logical: missing pin </answer>")
        'logical: missing pin'
    """
    return _block(text, *_find_tags(text), "answer")


def _find_tags(text: str) -> tuple[list[int], list[str]]:
    """Return the places of the template's tags, and the tags."""
    places, tags = [], []
    place = _next_tag(text, 0)
    while place >= 0:
        places.append(place)
        tags.append(text[place : text.index(">", place) + 1])
        place = _next_tag(text, place + 1)
    return places, tags


def _read(text: str) -> Response:
    """Parse any text, without the cache."""
    places, tags = _find_tags(text)
    reasoning, answer = _block(text, places, tags, "think"), _block(text, places, tags, "answer")
    return Response(reasoning, _label(answer), bool(reasoning and answer) and _is_template(text, places, tags))


def _block(text: str, places: Sequence[int], tags: Sequence[str], name: str) -> str:
    """Return the text of the only block called ``name``; empty if there are none or several, or it is nested."""
    opening, closing = f"<{name}>", f"</{name}>"
    if tags.count(opening) != 1 or tags.count(closing) != 1:
        return ""
    place = tags.index(opening)
    if tags[place + 1 : place + 2] != [closing]:
        return ""
    if place and not tags[place - 1].startswith("</"):  # inside a block of the other name
        return ""
    return text[places[place] + len(opening) : places[place + 1]].strip()


def _is_template(text: str, places: Sequence[int], tags: Sequence[str]) -> bool:
    """Whether the tags are the template's, each once and in order, with only white space outside the blocks."""
    if tuple(tags) != _TAGS:
        return False
    outside = text[: places[0]], text[places[1] + len(tags[1]) : places[2]], text[places[3] + len(tags[3]) :]
    return not any(part.strip() for part in outside)


def template_regex(max_tokens: int) -> str:
    r"""Return the regular expression that structured decoding holds a response to.

    The reasoning is not blank, has no tag, and is so short that the answer fits even if each character takes a token.
    Only characters outside ASCII may take several.

    Raises:
        UsageError: The template does not fit into ``max_tokens``.

    Example:
        >>> print(template_regex(100))
        <think>\s?[^<\s][^<]{0,60}</think><answer> ?(yes|no) ?</answer>
    """
    room = max_tokens - _FRAME - 2
    if room < 0:
        problem = f"structured decoding: {max_tokens} tokens per response leave no room for the answer template"
        raise UsageError(problem, remedy=f"Set --max-new-tokens or data.max_response_length to {_FRAME + 2} or more")
    return rf"<think>\s?[^<\s][^<]{{0,{room}}}</think><answer> ?(yes|no) ?</answer>"


def _label(answer: str) -> Label | None:
    # lower(), not casefold(), which would turn look-alikes such as "ye\u017f" into a label.
    return _LABEL_OF.get(answer.lower()) if len(answer) <= _LONGEST_LABEL else None
