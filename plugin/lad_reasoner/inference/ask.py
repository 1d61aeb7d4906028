"""Ask a model about one pair; its response is parsed as in training and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lad_reasoner.inference.predictions import Failure, ScoreSource
from lad_reasoner.inference.protocol import Backend, Question
from lad_reasoner.pairs.images import decode, read_image_bytes
from lad_reasoner.pairs.schema import Image
from lad_reasoner.support.errors import RunError
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import Label, problem_text, prompt_text

__all__ = ["Verdict", "ask", "read_image_file"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A model's response to a pair, parsed.

    Attributes:
        answer: "yes" (the query is anomalous), "no", or None where the response has no readable answer.
        reasoning: The text of the think block; empty where there is none.
        score: P(yes) in [0, 1]; None if the backend has no probabilities.
        score_source: Where the score was read.
        well_formed: Whether the response keeps to the template.
        seconds: Wall-clock time of the model.
        cut: Whether the response was cut off at the token limit.
    """

    answer: Label | None
    reasoning: str
    score: float | None
    score_source: ScoreSource | None
    well_formed: bool
    response: str
    seconds: float
    cut: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return asdict(self)


def ask(backend: Backend, references: Sequence[Image], query: Image) -> Verdict:
    """Ask a model about one pair of one or several normal references and a query.

    Raises:
        DataError: An image cannot be decoded.
        RunError: The backend gave no answer.
    """
    prompt = prompt_text(problem_text(len(references)))
    answer = next(iter(backend.answer([Question("", prompt, (*references, query))])), None)
    if answer is None:
        raise RunError("the backend gave no answer", where=backend.model)
    if isinstance(answer, Failure):
        raise RunError(answer.reason, where=backend.model)
    response = parse(answer.response)
    return Verdict(
        answer=response.answer,
        reasoning=response.reasoning,
        score=answer.score,
        score_source=answer.score_source,
        well_formed=response.well_formed,
        response=answer.response,
        seconds=answer.seconds,
        cut=answer.finish_reason == "length",
    )


def read_image_file(path: Path, *, where: object = None) -> Image:
    """Read an image file that a model may be asked about, and decode it once: a broken one costs no model load.

    Args:
        path: The file.
        where: What to call it in an error; its path by default.

    Raises:
        DataError: It cannot be read, is broken or of another format, or has too many pixels.
    """
    name = where or path
    data = read_image_bytes(path, where=name)
    decode(data, name)
    return Image(data=data, path=str(name), sha256=hashlib.sha256(data).hexdigest())
