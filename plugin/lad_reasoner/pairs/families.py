"""The model families that this package knows. To add one, add a row; everything else reads this table.

`lad_rehearsal.rehearse.tiny_model` additionally needs a tiny model of the family, to rehearse it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lad_reasoner.pairs.tokens import QWEN2_5_VL, QWEN3_VL, ProcessorPixels

__all__ = ["FAMILIES", "Family", "find_family", "model_types"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of vision-language models.

    Attributes:
        model_type: The architecture's name in transformers (``config.json``).
        names: Regular expression that matches the names of its models, in lower case.
        processor: Resize rule of its image processor, as published.
        templates: LLaMA-Factory's templates for it.
        tokenizer: Class of its tokenizer in transformers 4 and 5.
        answers: Whether `lad predict` can run it with transformers.
        box_scale: Range of its box coordinates; None for pixels of the image after the processor's resize.
        easyr1_needs: What EasyR1 needs to train it in addition to its own requirements.
    """

    model_type: str
    names: str
    processor: ProcessorPixels
    templates: tuple[str, ...]
    tokenizer: str = "Qwen2Tokenizer"
    answers: bool = True
    box_scale: int | None = None
    easyr1_needs: tuple[str, ...] = ()


#: The first releases with Qwen3-VL.
_QWEN3_VL_NEEDS: Final = ("transformers>=4.57", "vllm>=0.11")
_QWEN3_VL_TEMPLATES: Final = ("qwen3_vl", "qwen3_vl_nothink")

#: The first family whose names match a model's name is the model's.
FAMILIES: Final = (
    Family(model_type="qwen2_5_vl", names=r"qwen2[._-]?5[-_.]?vl", processor=QWEN2_5_VL, templates=("qwen2_vl",)),
    Family(
        model_type="qwen2_vl", names=r"qwen2[-_.]?vl", processor=QWEN2_5_VL, templates=("qwen2_vl",), box_scale=1000
    ),
    Family(
        model_type="qwen3_vl_moe",
        names=r"qwen3[-_.]?vl.*-a\d+b",
        processor=QWEN3_VL,
        box_scale=1000,
        templates=_QWEN3_VL_TEMPLATES,
        answers=False,
        easyr1_needs=_QWEN3_VL_NEEDS,
    ),
    Family(
        model_type="qwen3_vl",
        names=r"qwen3[-_.]?vl",
        processor=QWEN3_VL,
        box_scale=1000,
        templates=_QWEN3_VL_TEMPLATES,
        easyr1_needs=_QWEN3_VL_NEEDS,
    ),
)


def find_family(name: str) -> Family | None:
    """Return the family of a model type or of a model's name or path; None for an unknown one.

    Example:
        >>> from lad_reasoner.pairs.families import find_family
        >>> find_family("Qwen/Qwen2.5-VL-3B-Instruct").model_type, find_family("llava")
        ('qwen2_5_vl', None)
    """
    low = name.lower()
    exact = next((family for family in FAMILIES if family.model_type == low), None)
    return exact or next((family for family in FAMILIES if re.search(family.names, low)), None)


def model_types(*, answers: bool = False) -> tuple[str, ...]:
    """Return the model types of all families, or only of those that `lad predict` can run."""
    return tuple(family.model_type for family in FAMILIES if family.answers or not answers)
