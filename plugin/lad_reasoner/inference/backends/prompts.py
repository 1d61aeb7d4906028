"""From a question to token ids, positions and image patches, each distinct thing prepared once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from math import prod
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from lad_reasoner.inference.backends.messages import chat_parts
from lad_reasoner.inference.predictions import Sampling
from lad_reasoner.inference.protocol import Question
from lad_reasoner.models.qwen_vl import expand_image_tokens
from lad_reasoner.pairs.images import decode
from lad_reasoner.support.errors import DataError

__all__ = ["Encoded", "Patches", "Prompt", "Prompts", "Recent"]

_Grid = tuple[int, int, int]

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Recent(Generic[_Key, _Value]):
    """A cache that keeps ``size`` values from one call to the next: those that were asked for last."""

    def __init__(self, size: int) -> None:
        self._size, self._values = size, OrderedDict[_Key, _Value]()

    def take(self, keys: Iterable[_Key], make: Callable[[list[_Key]], Iterable[_Value]]) -> dict[_Key, _Value]:
        """Return the value of every key; those not here are made together, each once."""
        wanted = dict.fromkeys(keys)
        missing = [key for key in wanted if key not in self._values]
        made = dict(zip(missing, make(missing), strict=True)) if missing else {}
        found = {key: made[key] if key in made else self._values[key] for key in wanted}
        for key, value in found.items():
            self._values[key] = value
            self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return found


@dataclass(frozen=True)
class _File:
    """An encoded image, and what to call it in an error."""

    data: bytes
    where: str

    @cached_property
    def key(self) -> bytes:
        return hashlib.blake2b(self.data, digest_size=16).digest()


@dataclass(frozen=True)
class Patches:
    """An image as the vision tower takes it.

    Attributes:
        key: Digest of the encoded image: equal images are equal keys.
        pixels: ``(patches, values)``.
        grid: Frames, rows and columns of patches.
    """

    key: bytes
    pixels: torch.Tensor
    grid: _Grid


@dataclass(frozen=True)
class Encoded:
    """A prompt as the language model takes it.

    Attributes:
        ids: ``(length,)`` token ids; image tokens repeated to the size of their image.
        positions: ``(3, length)``: time, row and column of each token.
        next_position: Of the first token of the response.
        prefix: How many leading tokens depend on the references alone.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    next_position: int
    prefix: int


@dataclass(frozen=True)
class Prompt:
    """An encoded prompt with its images, references first, and the tokens that follow it (those of a response)."""

    encoded: Encoded
    images: tuple[Patches, ...]
    ending: tuple[int, ...] = ()

    @property
    def prefix_key(self) -> tuple[bytes, ...]:
        """What the prefix depends on: its tokens and the reference images."""
        tokens = self.encoded.ids[: self.encoded.prefix].numpy().tobytes()
        return (hashlib.blake2b(tokens, digest_size=16).digest(), *(image.key for image in self.images[:-1]))


class Prompts:
    """Prepares prompts for one model, whose ``get_rope_index`` is ``rope_index``.

    Images are held between the pixel limits of ``sampling``; relative paths start at ``root``.
    """

    def __init__(
        self,
        processor: Any,
        *,
        rope_index: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        image_token: int,
        sampling: Sampling,
        root: Path,
    ) -> None:
        self._processor, self._rope_index, self._image_token = processor, rope_index, image_token
        self._pixels = {"min_pixels": sampling.min_pixels, "max_pixels": sampling.max_pixels}
        self._root = root
        self._patches: Recent[bytes, Patches] = Recent(512)
        self._encoded: Recent[tuple[Hashable, ...], Encoded] = Recent(4096)
        self._texts: Recent[str, tuple[int, ...]] = Recent(4096)

    def prepare(self, questions: Sequence[Question]) -> list[Prompt]:
        """Return the prompts of questions; an image seen recently is not decoded again, the others all at once.

        Raises:
            DataError: An image cannot be read or decoded, or the markers of a prompt do not match its images.
        """
        read = [[_File(*image) for image in question.read_images(self._root)] for question in questions]
        by_key = {image.key: image for images in read for image in images}
        patches = self._patches.take(by_key, lambda keys: self._make_patches([by_key[key] for key in keys]))
        prompts = []
        for question, images in zip(questions, read, strict=True):
            own = tuple(patches[image.key] for image in images)
            prompts.append(Prompt(self._encode(question, tuple(image.grid for image in own)), own))
        return prompts

    def chat(self, prompt: str) -> str:
        """Return the whole text the model continues: the user's turn in the model's chat template."""
        messages = [{"role": "user", "content": list(chat_parts(prompt, repeat({"type": "image"})))}]
        return str(self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _tokenize(self, prompt: str) -> tuple[int, ...]:
        return tuple(self._processor.tokenizer(self.chat(prompt), add_special_tokens=False)["input_ids"])

    def _make_patches(self, images: Sequence[_File]) -> list[Patches]:
        pictures = [decode(image.data, image.where) for image in images]
        made = self._processor.image_processor(images=pictures, return_tensors="pt", **self._pixels)
        grids = [tuple(grid) for grid in made["image_grid_thw"].tolist()]
        parts = made["pixel_values"].split([prod(grid) for grid in grids])
        # Clone: a view would keep the whole batch in memory as long as one image.
        return [Patches(image.key, part.clone(), grid) for image, part, grid in zip(images, parts, grids, strict=True)]

    def _encode(self, question: Question, grids: tuple[_Grid, ...]) -> Encoded:
        key = (question.prompt, grids)
        return self._encoded.take([key], lambda _: [self._make_encoded(*key, question.where)])[key]

    def _make_encoded(self, prompt: str, grids: tuple[_Grid, ...], where: str) -> Encoded:
        short = self._texts.take([prompt], lambda _: [self._tokenize(prompt)])[prompt]
        markers = short.count(self._image_token)
        if markers != len(grids):
            raise DataError(f"{markers} image markers for {len(grids)} images", where=where)
        merge_size = self._processor.image_processor.merge_size
        ids = expand_image_tokens(short, grids, image_token=self._image_token, merge_size=merge_size)
        prefix = 0
        if grids:  # the query's tokens are the last image tokens
            prefix = len(ids) - ids[::-1].index(self._image_token) - prod(grids[-1]) // merge_size**2
        row = torch.tensor([ids])
        kinds = (row == self._image_token).int()
        positions, _ = self._rope_index(row, mm_token_type_ids=kinds, image_grid_thw=torch.tensor(grids))
        return Encoded(row[0], positions[:, 0], int(positions.max()) + 1, prefix)
