"""How long a pair's prompt is in Qwen2.5-VL's tokens: images by the processor's rule, text by a tokenizer if given.

Trainers drop or cut prompts above ``max_prompt_length``, some of them silently. What is computed here from sizes and
text is what the processor makes; the tests compare the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.pairs.tokens import QWEN2_5_VL, ProcessorPixels, TrainerPixels, image_tokens
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.task import IMAGE_MARKER

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["PromptRuler", "round_up"]

#: Qwen2.5-VL's chat template around one user turn, with its default system prompt.
_CHAT: Final = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
)
_IMAGE: Final = "<|vision_start|><|image_pad|><|vision_end|>"

#: English text has at least this many characters a token in Qwen's vocabulary: a bound where no tokenizer is given.
_CHARACTERS_PER_TOKEN: Final = 3


@dataclass(frozen=True)
class PromptRuler:
    """Measures prompts.

    Attributes:
        trainer: EasyR1's resize before the processor's; None if the processor alone resizes, as in verl.
        processor: The processor's bounds.
        tokenizer: ``tokenizer.json``, or the folder of a model that has one; None bounds the text from above.
    """

    trainer: TrainerPixels | None = None
    processor: ProcessorPixels = QWEN2_5_VL
    tokenizer: Path | None = None

    @property
    def exact(self) -> bool:
        """Whether text is counted, not bounded."""
        return self.tokenizer is not None

    def measure(self, text: str, sizes: Sequence[tuple[int, int]]) -> int:
        """Return the tokens of a prompt, from the system prompt to the start of the answer.

        Args:
            text: The user's turn with an image marker for each image.
            sizes: Width and height of each image, in pixels, as stored.

        Raises:
            ValueError: An image is more than 200 times as long as wide.
        """
        images = sum(
            image_tokens(width, height, trainer=self.trainer, processor=self.processor) for width, height in sizes
        )
        return images + _text_tokens(text, self.tokenizer)


@cache
def _text_tokens(text: str, tokenizer: Path | None) -> int:
    """Return the tokens of a prompt without those that stand for image content."""
    images = text.count(IMAGE_MARKER)
    if tokenizer is None:
        plain = _CHAT.format(content=text.replace(IMAGE_MARKER, ""))
        return math.ceil(len(plain) / _CHARACTERS_PER_TOKEN) + 2 * images
    prompt = _CHAT.format(content=text.replace(IMAGE_MARKER, _IMAGE))
    return len(_read_tokenizer(tokenizer).encode(prompt, add_special_tokens=False).ids) - images


@cache
def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UsageError("--tokenizer", found="no package tokenizers", remedy="pip install tokenizers") from error
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(file, found="no such file", expected="tokenizer.json or a model folder that has one")
    try:
        read: Any = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises nothing narrower
        raise DataError(file, found=f"no tokenizer ({error})", expected="tokenizer.json") from error
    return read


def round_up(tokens: int, multiple: int = 64) -> int:
    """Return the next multiple, for a ``max_prompt_length`` that loses nothing.

    Example:
        >>> round_up(1001)
        1024
    """
    return math.ceil(tokens / multiple) * multiple
