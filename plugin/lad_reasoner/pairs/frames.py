"""The frame of a model's box coordinates: the image as the model sees it, or a square of 1000.

Qwen2.5-VL states pixels of the image after its processor's resize; Qwen2-VL and Qwen3-VL state thousandths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

from lad_reasoner.pairs.families import find_family
from lad_reasoner.pairs.tokens import QWEN2_5_VL, ProcessorPixels, TrainerPixels, fit_processor, fit_trainer

__all__ = ["SEEN_PIXELS", "Frame"]


@dataclass(frozen=True, slots=True)
class Frame:
    """How box coordinates relate to an image.

    Attributes:
        scale: Both sides of the frame; None for the image's own pixels after the resizes.
        processor: The processor's resize.
        trainer: The trainer's resize before it; None if there is none.
    """

    scale: int | None = None
    processor: ProcessorPixels = QWEN2_5_VL
    trainer: TrainerPixels | None = None

    @classmethod
    def of_model(cls, model: str, *, min_pixels: int | None = None, max_pixels: int | None = None) -> Self:
        """Return the frame of a model asked by `lad predict`; an unknown one is read like Qwen2.5-VL.

        ``model`` is a name or path. The pixel limits are those of the run, by default the family's own.
        """
        family = find_family(model)
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        given = {name: value for name, value in limits.items() if value is not None}
        processor = replace(family.processor if family else QWEN2_5_VL, **given)
        return cls(scale=family.box_scale if family else None, processor=processor)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the frame's width and height for an image of this stored size.

        Example:
            >>> Frame().size(1600, 1280), Frame(scale=1000).size(1600, 1280)
            ((1596, 1288), (1000, 1000))
        """
        if self.scale is not None:
            return self.scale, self.scale
        if self.trainer is not None:
            width, height = fit_trainer(width, height, self.trainer)
        return fit_processor(width, height, self.processor)


#: Qwen2.5-VL's frame, with the processor's own bounds.
SEEN_PIXELS: Final = Frame()
