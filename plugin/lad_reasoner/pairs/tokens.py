"""How many tokens an image costs in a Qwen-VL prompt, computed from its size alone. Standard library only.

Two resizes happen before a model sees an image. First the trainer's: EasyR1 scales the image so that its area lies
within ``min_pixels`` and ``max_pixels`` of the config (``TrainerPixels``). Then the processor's: both sides become
multiples of a factor (``ProcessorPixels``). One token stands for one ``factor`` x ``factor`` square.

Both rules are restated here from their published behaviour and tested against the installed libraries, so that a
check needs neither torch nor transformers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = [
    "MAX_ASPECT_RATIO",
    "QWEN2_5_VL",
    "QWEN3_VL",
    "ProcessorPixels",
    "TrainerPixels",
    "fit_processor",
    "fit_trainer",
    "image_tokens",
]

#: The processor refuses longer images than this.
MAX_ASPECT_RATIO: Final = 200


@dataclass(frozen=True, slots=True)
class ProcessorPixels:
    """The resize rule of an image processor, as its ``preprocessor_config.json`` states it.

    Attributes:
        factor: Side of the square that becomes one token: patch size x merge size, in pixels.
        min_pixels: Smallest area, in pixels.
        max_pixels: Largest area, in pixels.
    """

    factor: int
    min_pixels: int
    max_pixels: int


#: Qwen2.5-VL's processor as published: patch 14 x merge 2.
QWEN2_5_VL: Final = ProcessorPixels(factor=28, min_pixels=56 * 56, max_pixels=12_845_056)

#: Qwen3-VL's processor as published: patch 16 x merge 2.
QWEN3_VL: Final = ProcessorPixels(factor=32, min_pixels=256 * 256, max_pixels=4096 * 4096)


@dataclass(frozen=True, slots=True)
class TrainerPixels:
    """The area, in pixels, to which EasyR1 scales an image before the processor sees it; None means no bound."""

    min_pixels: int | None = None
    max_pixels: int | None = None


def fit_trainer(width: int, height: int, pixels: TrainerPixels) -> tuple[int, int]:
    """Return the size after the trainer's resize; the aspect ratio is kept, sides are cut to whole pixels.

    Example:
        >>> fit_trainer(1600, 1280, TrainerPixels(max_pixels=401408))
        (708, 566)
    """
    for bound, exceeds in ((pixels.max_pixels, True), (pixels.min_pixels, False)):
        area = width * height
        if bound is not None and (area > bound if exceeds else area < bound):
            scale = math.sqrt(bound / area)
            width, height = int(width * scale), int(height * scale)
    return width, height


def fit_processor(width: int, height: int, pixels: ProcessorPixels = QWEN2_5_VL) -> tuple[int, int]:
    """Return the size after the processor's resize: multiples of the factor, the area within its bounds.

    Raises:
        ValueError: The image is empty, or more than 200 times as long as wide.

    Example:
        >>> fit_processor(1600, 1280)
        (1596, 1288)
    """
    if min(width, height) < 1 or max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(f"an image of {width}x{height} pixels cannot be processed: sides differ more than 200-fold")
    factor = pixels.factor
    # round() to even, as the processor does: 42 becomes 56 (1.5 -> 2) and 70 becomes 56 (2.5 -> 2).
    fitted_width, fitted_height = round(width / factor) * factor, round(height / factor) * factor
    if fitted_width * fitted_height > pixels.max_pixels:
        shrink = math.sqrt(width * height / pixels.max_pixels)
        fitted_width = max(factor, math.floor(width / shrink / factor) * factor)
        fitted_height = max(factor, math.floor(height / shrink / factor) * factor)
    elif fitted_width * fitted_height < pixels.min_pixels:
        grow = math.sqrt(pixels.min_pixels / (width * height))
        fitted_width = math.ceil(width * grow / factor) * factor
        fitted_height = math.ceil(height * grow / factor) * factor
    return fitted_width, fitted_height


def image_tokens(
    width: int, height: int, *, trainer: TrainerPixels | None = None, processor: ProcessorPixels = QWEN2_5_VL
) -> int:
    """Return the number of placeholder tokens of one image, without its start and end marks.

    Args:
        width: In pixels, as stored.
        height: In pixels, as stored.
        trainer: The trainer's resize; None if the processor alone resizes.
        processor: The processor's resize.

    Raises:
        ValueError: The image is empty or too long to be processed.

    Example:
        >>> image_tokens(1600, 1280)
        2622
        >>> image_tokens(1600, 1280, trainer=TrainerPixels(max_pixels=401408))
        500
    """
    if trainer is not None:
        width, height = fit_trainer(width, height, trainer)
    width, height = fit_processor(width, height, processor)
    return (width // processor.factor) * (height // processor.factor)
