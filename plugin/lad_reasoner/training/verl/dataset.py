"""The pair parquet as verl's dataset, with EasyR1's prompt: ``data.custom_cls.path=pkg://lad_reasoner.training.verl.dataset``.

The same YAML must train on the same tokens and pixels whichever trainer runs it. So the prompt is built here as EasyR1
builds it: the text column ``data.prompt_key`` inside the jinja file ``data.format_prompt``, images scaled by
``data.min_pixels`` and ``data.max_pixels`` and handed to the processor as they are. The column ``prompt`` is not read.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from verl.utils.dataset.rl_dataset import RLHFDataset

from lad_reasoner.pairs.images import open_image, read_image_bytes
from lad_reasoner.pairs.tokens import ProcessorPixels, TrainerPixels, fit_trainer, image_tokens
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import IMAGE_MARKER, prompt_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import datasets

__all__ = ["PairDataset"]


class PairDataset(RLHFDataset):  # type: ignore[misc]
    """verl's dataset with EasyR1's ``data.format_prompt``, ``min_pixels``, ``max_pixels`` and ``image_dir``."""

    @cached_property
    def _template(self) -> str | None:
        path = self.config.get("format_prompt")
        return Path(path).read_text(encoding="utf-8") if path else None

    @cached_property
    def _pixels(self) -> TrainerPixels:
        return TrainerPixels(self.config.get("min_pixels"), self.config.get("max_pixels"))

    def _build_messages(self, example: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        """Return the user's turn; images are decoded, scaled and RGB.

        Raises:
            DataError: The column holds no text, an image is unreadable, or markers and images differ in number.
        """
        parts = self._text(example, key).split(IMAGE_MARKER)
        images = example.get(self.image_key) or []
        if len(parts) != len(images) + 1:
            problem = f"the text has {len(parts) - 1} {IMAGE_MARKER} for {len(images)} images"
            raise DataError(problem, where=_name(example), remedy="Write one marker for each image")
        content: list[dict[str, Any]] = []
        for index, part in enumerate(parts):
            if index:
                content.append({"type": "image", "image": self._picture(images[index - 1], _name(example))})
            if part:
                content.append({"type": "text", "text": part})
        return [{"role": "user", "content": content}]

    def _text(self, example: Mapping[str, Any], key: str) -> str:
        problem = example[key]
        if not isinstance(problem, str):
            fault = f"it holds a {type(problem).__name__}, not text with image markers"
            remedy = "Set data.prompt_key to the column of the question, such as problem"
            raise DataError(fault, where=f"{_name(example)}, column {key}", remedy=remedy)
        return problem if self._template is None else prompt_text(problem, self._template)

    def _picture(self, image: Any, where: str) -> Image.Image:
        picture = self._open(image, where)
        size = fit_trainer(*picture.size, self._pixels)
        return (picture if size == picture.size else picture.resize(size)).convert("RGB")

    def _open(self, image: Any, where: str) -> Image.Image:
        """Open an image given as ``{bytes, path}`` or as a path; pixels are decoded later."""
        if isinstance(image, Image.Image):  # a column of Hugging Face Image features
            return image
        data, path = (image["bytes"], image["path"]) if isinstance(image, dict) else (None, image)
        return open_image(data or read_image_bytes(Path(self.config.get("image_dir") or "", path)), where)

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset) -> datasets.Dataset:
        """Drop rows whose prompt is longer than ``data.max_prompt_length`` and print how many.

        Lengths are computed from the text and the sizes of the images: no pixel is decoded.
        """
        if not self.filter_overlong_prompts:
            return dataframe
        fits = [i for i, row in enumerate(dataframe) if self.prompt_length(row) <= self.max_prompt_length]
        dropped, limit = len(dataframe) - len(fits), self.max_prompt_length
        # This runs in the trainer's process: stdout is its log.
        print(f"{dropped} of {len(dataframe)} prompts are longer than {limit} tokens and are left out")
        return dataframe.select(fits)

    def prompt_length(self, example: Mapping[str, Any]) -> int:
        """Return the tokens of a prompt, image tokens included."""
        processor = self.processor.image_processor
        rule = ProcessorPixels(
            factor=processor.patch_size * processor.merge_size,
            min_pixels=processor.size["shortest_edge"],
            max_pixels=processor.size["longest_edge"],
        )
        images = example.get(self.image_key) or []
        sizes = [self._open(image, _name(example)).size for image in images]
        tokens = [image_tokens(*size, trainer=self._pixels, processor=rule) for size in sizes]
        # The text holds one placeholder per image, which its tokens replace.
        return self._text_length(self._text(example, self.prompt_key)) + sum(tokens) - len(tokens)

    @cached_property
    def _text_length(self) -> Callable[[str], int]:
        @lru_cache(maxsize=4096)
        def length(text: str) -> int:
            parts: list[dict[str, str]] = []
            for index, part in enumerate(text.split(IMAGE_MARKER)):
                parts += [{"type": "image"}] * bool(index) + [{"type": "text", "text": part}] * bool(part)
            chat = self.processor.apply_chat_template(
                [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
            )
            return len(self.tokenizer(chat, add_special_tokens=False)["input_ids"])

        return length

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be pickled: the state is stored in each checkpoint."""
        return {key: value for key, value in super().__getstate__().items() if key != "_text_length"}

    @classmethod
    def _process_multi_modal_info(
        cls, messages: list[dict[str, Any]], *_unused: Any, **_ignored: Any
    ) -> tuple[list[Image.Image], None, None]:
        """Return the images of the messages, which are already scaled."""
        parts = [part for message in messages for part in message["content"]]
        return [part["image"] for part in parts if part["type"] == "image"], None, None


def _name(example: Mapping[str, Any]) -> str:
    return f"pair {example.get('pair_id', '?')}"
