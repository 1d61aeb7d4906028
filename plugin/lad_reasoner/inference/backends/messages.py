"""A question as the chat message that servers and vLLM read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lad_reasoner.inference.protocol import BackendOptions, Question
from lad_reasoner.pairs.images import data_url, decode
from lad_reasoner.pairs.tokens import QWEN2_5_VL, ProcessorPixels
from lad_reasoner.task.task import IMAGE_MARKER

__all__ = ["chat_content", "chat_parts", "chat_pictures", "request_seed"]


def chat_content(question: Question, options: BackendOptions) -> list[dict[str, Any]]:
    """Return the parts of the user's turn for a server: texts, and images as data URLs where the markers stand.

    Raises:
        DataError: An image cannot be read.
    """
    low, high = options.min_pixels, options.max_pixels
    pixels = None
    if low or high:
        pixels = ProcessorPixels(QWEN2_5_VL.factor, low or QWEN2_5_VL.min_pixels, high or QWEN2_5_VL.max_pixels)
    read = question.read_images(options.image_root)
    urls = (data_url(data, pixels=pixels, where=where) for data, where in read)
    return list(chat_parts(question.prompt, ({"type": "image_url", "image_url": {"url": url}} for url in urls)))


def chat_pictures(question: Question, root: Path) -> list[dict[str, Any]]:
    """Return the parts of the user's turn for vLLM in this process: texts, and decoded images.

    Raises:
        DataError: An image cannot be read.
    """
    pictures = (decode(data, where) for data, where in question.read_images(root))
    return list(chat_parts(question.prompt, ({"type": "image_pil", "image_pil": picture} for picture in pictures)))


def chat_parts(prompt: str, images: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the parts of a user's turn: its texts, and the next image where a marker stands."""
    for index, text in enumerate(prompt.split(IMAGE_MARKER)):
        if index:
            yield next(images)
        if text:
            yield {"type": "text", "text": text}


def request_seed(seed: int, pair_id: str, sample: int) -> int:
    """Return the 31-bit seed of a pair and sample."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{sample}\n{pair_id}".encode()).digest()[:4], "little") >> 1
