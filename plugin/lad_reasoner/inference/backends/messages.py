"""A question as the chat message that servers and vLLM read."""

from __future__ import annotations

import hashlib
from typing import Any

from lad_reasoner.inference.protocol import BackendOptions, Question
from lad_reasoner.pairs.images import data_url
from lad_reasoner.pairs.reader import read_image
from lad_reasoner.pairs.tokens import QWEN2_5_VL, ProcessorPixels
from lad_reasoner.task.task import IMAGE_MARKER

__all__ = ["chat_content", "request_seed"]


def chat_content(question: Question, options: BackendOptions) -> list[dict[str, Any]]:
    """Return the parts of the user's turn: texts, and images where the markers stand.

    Raises:
        DataError: An image cannot be read.
    """
    low, high = options.min_pixels, options.max_pixels
    pixels = None
    if low or high:
        pixels = ProcessorPixels(QWEN2_5_VL.factor, low or QWEN2_5_VL.min_pixels, high or QWEN2_5_VL.max_pixels)
    content: list[dict[str, Any]] = []
    images = iter(question.images)
    for index, text in enumerate(question.prompt.split(IMAGE_MARKER)):
        if index:
            image = next(images)
            where = f"{question.where}, image {image.path}"
            url = data_url(read_image(image, options.image_root), pixels=pixels, where=where)
            content.append({"type": "image_url", "image_url": {"url": url}})
        if text:
            content.append({"type": "text", "text": text})
    return content


def request_seed(seed: int, pair_id: str, sample: int) -> int:
    """Return a seed of its own for each pair and sample, in 31 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{sample}\n{pair_id}".encode()).digest()[:4], "little") >> 1
