"""One pair: what a model says about it, read by the parser that training and evaluation use."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from lad_reasoner.inference.predictions import ScoreSource
from lad_reasoner.inference.protocol import Backend, Question
from lad_reasoner.pairs.schema import Image
from lad_reasoner.support.errors import DataError, RunError
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import Label, problem_text, prompt_text

__all__ = ["IMAGE_FORMATS", "MAX_IMAGE_PIXELS", "Verdict", "ask", "read_image_file"]

#: What a photograph may come as.
IMAGE_FORMATS: Final = ("PNG", "JPEG", "WEBP")

#: Larger pictures are refused before they are decoded: 64 megapixels are 192 MB in memory.
MAX_IMAGE_PIXELS: Final = 64_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model says about a pair.

    Attributes:
        answer: "yes" (the query is anomalous), "no", or None where the response has no readable answer.
        reasoning: The text of the think block; empty where there is none.
        score: P(yes) in [0, 1]; None where the backend cannot tell.
        score_source: Where the score was read.
        well_formed: Whether the response keeps to the template.
        response: The whole text.
        seconds: Wall-clock seconds of the model.
    """

    answer: Label | None
    reasoning: str
    score: float | None
    score_source: ScoreSource | None
    well_formed: bool
    response: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return asdict(self)


def ask(backend: Backend, references: Sequence[Image], query: Image) -> Verdict:
    """Ask a model about one pair.

    Args:
        backend: What answers.
        references: One normal image, or several.
        query: The image in question.

    Raises:
        DataError: An image cannot be decoded.
        RunError: The backend gave no answer.
    """
    prompt = prompt_text(problem_text(len(references)))
    answer = next(iter(backend.answer([Question("", prompt, (*references, query))])), None)
    if answer is None:
        raise RunError(backend.model, found="no answer", expected="one response to one question")
    response = parse(answer.response)
    return Verdict(
        answer=response.answer,
        reasoning=response.reasoning,
        score=answer.score,
        score_source=answer.score_source,
        well_formed=response.well_formed,
        response=answer.response,
        seconds=answer.seconds,
    )


def read_image_file(path: Path, *, where: object = None) -> Image:
    """Read an image file that a model may be asked about; only its header is decoded.

    Args:
        path: A PNG, JPEG or WebP.
        where: What to call it in an error; its path by default.

    Raises:
        DataError: It cannot be read, is of another format, or has too many pixels.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    name = where or path
    try:
        data = path.read_bytes()
        with Pillow.open(BytesIO(data), formats=IMAGE_FORMATS) as picture:
            pixels = picture.width * picture.height
    except UnidentifiedImageError as error:
        raise DataError(name, found="no readable image", expected="PNG, JPEG or WebP") from error
    except Pillow.DecompressionBombError as error:
        raise DataError(name, found=str(error), expected=f"at most {MAX_IMAGE_PIXELS:,} pixels") from error
    except (OSError, ValueError, SyntaxError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise DataError(name, found=found, expected="an image file") from error
    if pixels > MAX_IMAGE_PIXELS:
        raise DataError(name, found=f"{pixels:,} pixels", expected=f"at most {MAX_IMAGE_PIXELS:,}")
    return Image(data=data, path=str(name), sha256=hashlib.sha256(data).hexdigest())
