"""A key/value cache with room to grow, so that a new token is written instead of everything copied."""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["GrowingCache"]

#: Tokens of room made at once.
_ROOM: Final = 64


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values are views ``(rows, heads, length, head_dim)`` of buffers that are longer."""

    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append tokens and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < end:
            self._move(key_states.shape, begin, end + _ROOM)
        assert self._buffers is not None
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, begin:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep (or repeat) the given rows."""
        super().batch_select_indices(indices)
        self._buffers = None

    def _move(self, shape: torch.Size, filled: int, capacity: int) -> None:
        rows, heads, _, size = shape
        buffers = self.keys.new_empty(rows, heads, capacity, size), self.keys.new_empty(rows, heads, capacity, size)
        if filled:
            buffers[0][:, :, :filled], buffers[1][:, :, :filled] = self.keys, self.values
        self._buffers = buffers


class GrowingCache(Cache):  # type: ignore[misc]
    """A cache of full-attention layers, made as they come."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_GrowingLayer)
