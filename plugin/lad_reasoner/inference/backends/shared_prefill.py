"""Prefill for Qwen2-VL, Qwen2.5-VL and Qwen3-VL that does every distinct thing once.

An image goes through the vision tower once, and the tokens of the references once for all the queries they serve: a
prompt is ``prefix`` (everything before the query image) and ``rest``. Rows of a batch are padded on the left, prefix
and rest each, and the mask leaves the padding out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.utils.rnn import pad_sequence

from lad_reasoner.inference.backends.cache import GrowingCache
from lad_reasoner.inference.backends.decoding import LanguageState
from lad_reasoner.inference.backends.prompts import Patches, Prompt, Recent
from lad_reasoner.models.qwen_vl import run_language_model

__all__ = ["SharedPrefill"]

#: Images sent through the vision tower at once, and reference prefixes kept from batch to batch.
_VISION_BATCH: Final = 64
_PREFIXES: Final = 16


@dataclass(frozen=True)
class _Span:
    """Consecutive tokens of a prompt.

    Attributes:
        embeddings: ``(length, hidden)``.
        positions: ``(3, length)``.
        seen: Which tokens are an image's, ``(length,)``.
        deep: What is added to those after each of the first layers, ``(layers, image tokens, hidden)``: Qwen3-VL's
            "deepstack" features; no layers in the other models.
    """

    embeddings: torch.Tensor
    positions: torch.Tensor
    seen: torch.Tensor
    deep: torch.Tensor


_Layers = list[tuple[torch.Tensor, torch.Tensor]]


class SharedPrefill:
    """Runs prompts and single tokens through a network.

    Args:
        network: A ``Qwen2VLForConditionalGeneration``, or that of Qwen2.5-VL or Qwen3-VL.
        device: Where it is.
        images: How many images' features are kept from batch to batch.
    """

    def __init__(self, network: Any, *, device: torch.device, images: int) -> None:
        self._network, self._device = network, device
        self._features: Recent[bytes, torch.Tensor] = Recent(images)
        self._prefixes: Recent[tuple[bytes, ...], _Layers] = Recent(_PREFIXES)

    def prefill(self, prompts: Sequence[Prompt]) -> LanguageState:
        """Run whole prompts and return the state from which a response is decoded."""
        features = self._see(image for prompt in prompts for image in prompt.images)
        by_key = {prompt.prefix_key: prompt for prompt in prompts}
        known = self._prefixes.take(
            by_key, lambda keys: self._prefill_prefixes([by_key[key] for key in keys], features)
        )
        state = self._gather([known[prompt.prefix_key] for prompt in prompts])
        spans = [self._span(prompt, features, prefix=False) for prompt in prompts]
        self._extend(state, spans)
        positions = [prompt.encoded.next_position + len(prompt.ending) for prompt in prompts]
        state.position = torch.tensor(positions, device=self._device)
        return state

    def step(self, state: LanguageState, tokens: torch.Tensor) -> None:
        """Run one more token a row."""
        embeddings = self._network.get_input_embeddings()(tokens)[:, None]
        mask = torch.cat([state.mask, state.mask.new_ones(len(tokens), 1)], dim=1)
        self._forward(state, embeddings, mask, state.position.expand(3, -1)[..., None])
        state.position = state.position + 1

    def _see(self, images: Iterable[Patches]) -> dict[bytes, torch.Tensor]:
        """Return the vision features ``(1 + deep layers, tokens, hidden)`` of every image."""
        by_key = {image.key: image for image in images}
        return self._features.take(by_key, lambda keys: self._run_vision([by_key[key] for key in keys]))

    def _run_vision(self, images: Sequence[Patches]) -> Iterator[torch.Tensor]:
        for start in range(0, len(images), _VISION_BATCH):
            part = images[start : start + _VISION_BATCH]
            pixels = torch.cat([image.pixels for image in part]).to(self._device)
            grids = torch.tensor([image.grid for image in part], device=self._device)
            output = self._network.model.get_image_features(pixels, grids)
            sizes = [len(features) for features in output.pooler_output]
            deep = [layer.split(sizes) for layer in getattr(output, "deepstack_features", None) or ()]
            yield from (torch.stack(layers) for layers in zip(output.pooler_output, *deep, strict=True))

    def _prefill_prefixes(self, prompts: Sequence[Prompt], features: dict[bytes, torch.Tensor]) -> Iterator[_Layers]:
        spans = [self._span(prompt, features, prefix=True) for prompt in prompts]
        nothing = torch.empty(len(spans), 0, device=self._device)
        state = LanguageState(GrowingCache(), nothing.long(), nothing.long(), nothing)
        self._extend(state, spans)
        for row, span in enumerate(spans):
            length = span.positions.shape[1]
            # Clone: a view would keep the whole batch in memory as long as one prefix.
            yield [
                (layer.keys[row, :, -length:].clone(), layer.values[row, :, -length:].clone())
                for layer in state.cache.layers
            ]

    def _span(self, prompt: Prompt, features: dict[bytes, torch.Tensor], *, prefix: bool) -> _Span:
        encoded = prompt.encoded
        part = slice(0, encoded.prefix) if prefix else slice(encoded.prefix, None)
        images = prompt.images[:-1] if prefix else prompt.images[-1:]
        ids, positions = encoded.ids[part].to(self._device), encoded.positions[:, part]
        embeddings = self._network.get_input_embeddings()(ids)
        layers = torch.cat([features[image.key] for image in images], dim=1).to(embeddings.dtype)
        seen = ids == self._network.config.image_token_id
        embeddings[seen] = layers[0]
        if prompt.ending and not prefix:
            ending = torch.tensor(prompt.ending, device=self._device)
            embeddings = torch.cat([embeddings, self._network.get_input_embeddings()(ending)])
            following = torch.arange(len(prompt.ending)) + encoded.next_position
            positions = torch.cat([positions, following.expand(3, -1)], dim=1)
            seen = torch.cat([seen, seen.new_zeros(len(prompt.ending))])
        return _Span(embeddings, positions.to(self._device), seen, layers[1:])

    def _gather(self, prefixes: Sequence[_Layers]) -> LanguageState:
        """Return a batch whose cache holds the given prefixes, padded on the left."""
        lengths = torch.tensor([layers[0][0].shape[1] for layers in prefixes], device=self._device)
        longest = int(lengths.max())
        cache = GrowingCache()
        for index in range(len(prefixes[0])):
            # The heads are the first dimension, and the tokens the second.
            keys, values = (
                _pad_left([layers[index][part].transpose(0, 1) for layers in prefixes]).transpose(1, 2)
                for part in (0, 1)
            )
            cache.update(keys, values, index)
        mask = (torch.arange(longest, device=self._device) >= longest - lengths[:, None]).long()
        return LanguageState(cache, mask, lengths, torch.empty(0, device=self._device))

    def _extend(self, state: LanguageState, spans: Sequence[_Span]) -> None:
        embeddings = _pad_left([span.embeddings for span in spans])
        positions = _pad_left([span.positions.T for span in spans])
        here = _pad_left([torch.ones_like(span.seen, dtype=torch.long) for span in spans])
        deep = torch.cat([span.deep for span in spans], dim=1)
        more: dict[str, Any] = {}
        if len(deep):
            seen = _pad_left([span.seen for span in spans])
            more = {"visual_pos_masks": seen, "deepstack_visual_embeds": list(deep)}
        mask = torch.cat([state.mask, here], dim=1)
        self._forward(state, embeddings, mask, positions.permute(2, 0, 1), **more)

    def _forward(
        self, state: LanguageState, embeddings: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, **more: Any
    ) -> None:
        hidden = run_language_model(self._network, state.cache, embeddings, mask=mask, positions=positions, **more)
        state.mask = mask
        state.logits = self._network.lm_head(hidden[:, -1]).float()


def _pad_left(rows: list[torch.Tensor]) -> torch.Tensor:
    return pad_sequence(rows, batch_first=True, padding_side="left")
