"""What a model has to answer, and what makes an answer unfit for training."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lad_datasets.annotate.subjects import Subject
from lad_reasoner.task.control_text import find_control_token

__all__ = ["QA", "TOPICS", "InvalidReplyError", "RefusalError", "Topic", "parse_reply", "reply_schema", "topics_of"]

Topic = Literal["detection", "description", "localization", "analysis"]
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)

#: Bounds in characters. Our choice: a question is a line, an answer a short paragraph.
QUESTION_LENGTH: Final = (10, 300)
ANSWER_LENGTH: Final = (20, 1200)

#: A run of this many words of a prior inside an answer is a copy, not an observation. Our choice: names of defects
#: and products are shorter, sentences longer.
COPIED_WORDS: Final = 10

#: Tags of the answer template, and control characters.
_CONTROL: Final = re.compile(r"</?think>|</?answer>|[\x00-\x08\x0b-\x1f\x7f]")

#: An answer must describe the image; these words refer to the prompt instead.
_TELLS: Final = re.compile(
    r"\bMMAD\b|\bground[- ]truth\b|\bannotation|\bpriors?\b|\bas an AI\b"
    r"|\b(?:provided|given|supplied) (?:information|context|label|hint|background)",
    re.IGNORECASE,
)

#: An English sentence has one of these.
_ENGLISH: Final = frozenset(
    {"the", "a", "an", "is", "are", "of", "in", "on", "at", "with", "no", "not", "this", "has"}
)
_WORD: Final = re.compile(r"\w+")
_FENCE: Final = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


class InvalidReplyError(Exception):
    """A reply that is not what was asked for; its text is the reason."""


class RefusalError(Exception):
    """The model refused, or a filter stopped it; its text is the reason."""


class QA(BaseModel):
    """A question about the image and its answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: Topic = Field(description="What the question is about.")
    question: str = Field(description="A question that a person could ask who sees only the image.")
    answer: str = Field(description="An answer that the image itself supports.")


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: list[QA] = Field(description="One pair for each topic asked for.")


def topics_of(subject: Subject) -> tuple[Topic, ...]:
    """Return the topics that make sense of an image: without a defect there is nothing to place or to explain."""
    return TOPICS if subject.is_anomalous else ("detection", "description")


def reply_schema() -> dict[str, Any]:
    """Return the JSON schema of a reply, free of keywords that strict structured output refuses."""
    return _Reply.model_json_schema()


def parse_reply(text: str, subject: Subject) -> list[QA]:
    """Read a reply.

    Raises:
        InvalidReplyError: It is no JSON, of another form, or unfit for training.
    """
    fenced = _FENCE.match(text)
    try:
        reply = _Reply.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise InvalidReplyError(f"{place}: {fault['msg']}" if place else fault["msg"]) from None
    if fault_line := next(_faults(reply.pairs, subject), None):
        raise InvalidReplyError(fault_line)
    return list(reply.pairs)


def _faults(pairs: Sequence[QA], subject: Subject) -> Iterator[str]:
    asked, given = sorted(topics_of(subject)), sorted(pair.topic for pair in pairs)
    if asked != given:
        yield f"topics {', '.join(given) or 'none'} instead of {', '.join(asked)}"
    if len({pair.question.strip().lower() for pair in pairs}) < len(pairs):
        yield "the same question twice"
    copied = _shingles(subject.priors)
    for pair in pairs:
        yield from (f"{pair.topic}: {fault}" for fault in _faults_of(pair, subject, copied))


def _faults_of(pair: QA, subject: Subject, copied: set[tuple[str, ...]]) -> Iterator[str]:
    for name, text, bounds in (("question", pair.question, QUESTION_LENGTH), ("answer", pair.answer, ANSWER_LENGTH)):
        if not bounds[0] <= len(text.strip()) <= bounds[1]:
            yield f"the {name} has {len(text.strip())} characters, not {bounds[0]} to {bounds[1]}"
        control = _CONTROL.search(text)
        if token := control.group() if control else find_control_token(text):
            yield f"the {name} holds {json.dumps(token)}, which trainers read as control text"
        if tell := _TELLS.search(text):
            yield f"the {name} refers to the prompt ({tell.group()!r}), not to the image"
    if not _is_english(pair.answer):
        yield "the answer is not in English"
    if _shingles([pair.answer]) & copied:
        yield f"the answer copies {COPIED_WORDS} words in a row from the prompt"
    verdict = "Yes" if subject.is_anomalous else "No"
    if pair.topic == "detection" and _WORD.findall(pair.answer.lower())[:1] != [verdict.lower()]:
        yield f"the answer does not begin with {verdict}, which is the truth"


def _is_english(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    latin = sum(character.isascii() for character in letters)
    return latin >= 0.95 * len(letters) and bool(_ENGLISH & set(text.lower().split()))


def _shingles(texts: Sequence[str]) -> set[tuple[str, ...]]:
    """Return every run of ``COPIED_WORDS`` words."""
    found = set()
    for text in texts:
        words = _WORD.findall(text.lower())
        found |= {tuple(words[i : i + COPIED_WORDS]) for i in range(len(words) - COPIED_WORDS + 1)}
    return found
