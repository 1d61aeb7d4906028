"""How many tokens a prompt has: the only estimate, for every check and for costs.

Trainers drop or cut prompts above ``max_prompt_length``, some of them silently. Images are counted exactly, by the
rule of trainer and processor; text by a tokenizer if one is given, else from its characters and never too few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.pairs.tokens import QWEN2_5_VL, ProcessorPixels, TrainerPixels, image_tokens
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.task import IMAGE_MARKER

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["VISION_TOKENS", "PromptRuler", "read_tokenizer", "round_up"]

#: Qwen2.5-VL's chat template around one user turn, with its default system prompt.
_CHAT: Final = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
)
#: What a Qwen-VL chat template writes for an image.
VISION_TOKENS: Final = "<|vision_start|><|image_pad|><|vision_end|>"

#: The template in tokens of Qwen's vocabulary, and what each further turn adds (two special tokens, the role, two
#: line ends).
_CHAT_TOKENS: Final = 20
_TURN_TOKENS: Final = 5

#: Each image stands between a start and an end token.
_MARKS: Final = 2

#: English text has at least this many characters per token in Qwen's vocabulary.
_CHARACTERS_PER_TOKEN: Final = 3


@dataclass(frozen=True)
class PromptRuler:
    """Measures prompts.

    Attributes:
        trainer: EasyR1's or LLaMA-Factory's resize before the processor's; None if the processor alone resizes.
        processor: The processor's bounds.
        tokenizer: ``tokenizer.json``, or the folder of a model that has one; without, text is estimated from above.
    """

    trainer: TrainerPixels | None = None
    processor: ProcessorPixels = QWEN2_5_VL
    tokenizer: Path | None = None

    def measure(self, text: str, sizes: Sequence[tuple[int, int]], *, turns: int = 1) -> int:
        """Return the tokens of a prompt, from the system prompt to the start of the answer.

        Args:
            text: The user's turn with an image marker for each image; of a conversation, all turns.
            sizes: Width and height of each image, in pixels, as stored.
            turns: How many turns ``text`` holds.

        Example:
            >>> from lad_reasoner.pairs.prompt_length import PromptRuler
            >>> PromptRuler().measure("<image>Is it sound?", [(56, 56)])
            30
        """
        return self.measure_images(sizes) + _text_tokens(text, self.tokenizer) + _TURN_TOKENS * (turns - 1)

    def measure_images(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Return the tokens of the images with their marks; an image that no processor accepts has none."""
        tokens = _MARKS * len(sizes)
        for width, height in sizes:
            with suppress(ValueError):
                tokens += image_tokens(width, height, trainer=self.trainer, processor=self.processor)
        return tokens


@cache
def _text_tokens(text: str, tokenizer: Path | None) -> int:
    """Return the tokens of a prompt without its images and their marks."""
    if tokenizer is None:
        return math.ceil(len(text.replace(IMAGE_MARKER, "")) / _CHARACTERS_PER_TOKEN) + _CHAT_TOKENS
    prompt = _CHAT.format(content=text.replace(IMAGE_MARKER, VISION_TOKENS))
    placeholders = (_MARKS + 1) * text.count(IMAGE_MARKER)
    return len(read_tokenizer(tokenizer).encode(prompt, add_special_tokens=False).ids) - placeholders


@cache
def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json, once for each path."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UsageError("--tokenizer needs the package tokenizers", remedy="Run: pip install tokenizers") from error
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError("no such file", where=file, remedy="Give a tokenizer.json or a model folder that has one")
    try:
        read: Any = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises nothing narrower
        raise DataError(f"this is no tokenizer ({error})", where=file) from error
    return read


def round_up(tokens: int, multiple: int = 64) -> int:
    """Return the next multiple, for a ``max_prompt_length`` that loses nothing.

    Example:
        >>> round_up(1001)
        1024
    """
    return math.ceil(tokens / multiple) * multiple
