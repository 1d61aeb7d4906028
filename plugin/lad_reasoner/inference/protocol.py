"""What a backend is given and what it returns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from lad_reasoner.inference.predictions import Failure, Sampling, ScoreSource
from lad_reasoner.pairs.reader import read_image
from lad_reasoner.pairs.schema import Image
from lad_reasoner.pairs.tokens import QWEN3_VL
from lad_reasoner.support.errors import UsageError

__all__ = ["Answer", "Backend", "BackendName", "BackendOptions", "Question"]

BackendName = Literal["transformers", "vllm", "openai"]

#: The least value of each option that is a number.
_LEAST: Final = {
    "temperature": 0,
    "max_new_tokens": 1,
    "min_pixels": 1,
    "max_pixels": 1,
    "batch_size": 1,
    "timeout": 1,
    "tensor_parallel": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """How a model is loaded and asked.

    Attributes:
        model: Folder or name.
        temperature, max_new_tokens, seed, structured, min_pixels, max_pixels: As in `Sampling`; the model's own
            processor decides about pixels by default.
        batch_size: Pairs asked at once; the backend chooses by default.
        device: ``cpu``, ``cuda``, ``cuda:1``; a GPU if there is one by default.
        dtype: ``float32``, ``bfloat16`` or ``float16``; float32 on a CPU and bfloat16 on a GPU by default.
        image_root: Where relative image paths start.
        base_url: Of a server; OPENAI_BASE_URL by default.
        timeout: Seconds a server has for one answer.
        tensor_parallel: GPUs of one copy of the model (vllm).
        scores: Ask a server for log-probabilities, which not every one gives.

    Raises:
        UsageError: A number is too small, too large or not finite.
    """

    model: str
    temperature: float = 0.0
    max_new_tokens: int = 512
    seed: int = 0
    min_pixels: int | None = None
    max_pixels: int | None = None
    structured: bool = False
    batch_size: int | None = None
    device: str | None = None
    dtype: str | None = None
    image_root: Path = Path()
    base_url: str | None = None
    timeout: float = 300.0
    tensor_parallel: int = 1
    scores: bool = True

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise UsageError(f"{value} is not a number of at least {least}", where=f"--{name.replace('_', '-')}")
        if (self.min_pixels or 0) > QWEN3_VL.max_pixels:
            problem = f"{self.min_pixels} is more than any model shrinks images to ({QWEN3_VL.max_pixels})"
            raise UsageError(problem, where="--min-pixels")

    @property
    def batch(self) -> int:
        """Pairs asked at once, where the backend has no reason to choose another number."""
        return self.batch_size or 16

    def sampling(self, min_pixels: int | None, max_pixels: int | None) -> Sampling:
        """Return how responses are sampled, with the pixel limits that the backend has resolved.

        Raises:
            UsageError: The smallest area is above the largest.
        """
        if min_pixels is not None and max_pixels is not None and min_pixels > max_pixels:
            problem = f"images would be enlarged to {min_pixels} pixels and shrunk to {max_pixels}"
            raise UsageError(problem, remedy="Correct --min-pixels or --max-pixels; by default they are the model's")
        return Sampling(
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            structured=self.structured,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
        )


@dataclass(frozen=True, slots=True)
class Question:
    """A pair to ask about.

    Attributes:
        pair_id: The pair; empty for one that is in no file.
        prompt: The user's turn with one image marker an image.
        images: References first, the query last.
        samples: Which samples are wanted; ``(0,)`` for a greedy answer.
        scored: Whether a score P(yes) is wanted; a multiple-choice question has none.
    """

    pair_id: str
    prompt: str
    images: tuple[Image, ...]
    samples: tuple[int, ...] = (0,)
    scored: bool = True

    @property
    def where(self) -> str:
        """What to call the pair in an error."""
        return f"pair {self.pair_id}" if self.pair_id else "the pair"

    def read_images(self, root: Path) -> Iterator[tuple[bytes, str]]:
        """Yield each encoded image, and what to call it in an error.

        Raises:
            DataError: An image cannot be read.
        """
        for image in self.images:
            yield read_image(image, root), f"{self.where}, image {image.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """One response to a question; the fields are those of ``Prediction``."""

    pair_id: str
    sample: int
    response: str
    score: float | None
    score_source: ScoreSource | None
    prompt_tokens: int | None
    response_tokens: int | None
    finish_reason: Literal["stop", "length"]
    seconds: float


class Backend(Protocol):
    """Something that answers questions.

    Attributes:
        name: Which backend it is.
        model: Path or name of its model, as given.
        model_digest: Digest of a local model; None for a remote one.
        dtype: Of the weights; None where a server decides.
        sampling: How it draws responses, with every default resolved.
    """

    @property
    def name(self) -> BackendName: ...  # noqa: D102

    @property
    def model(self) -> str: ...  # noqa: D102

    @property
    def model_digest(self) -> str | None: ...  # noqa: D102

    @property
    def dtype(self) -> str | None: ...  # noqa: D102

    @property
    def sampling(self) -> Sampling: ...  # noqa: D102

    def answer(self, questions: Iterable[Question]) -> Iterator[Answer | Failure]:
        """Answer every sample of every question, in any order, taking questions as they are needed.

        A question that cannot be answered costs only itself: it comes back as a `Failure`.
        """
        ...
