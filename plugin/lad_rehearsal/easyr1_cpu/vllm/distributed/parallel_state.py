"""Tensor parallelism of size 1."""

from __future__ import annotations

from types import SimpleNamespace

__all__ = [
    "get_tensor_model_parallel_group",
    "get_tensor_model_parallel_rank",
    "get_tensor_model_parallel_world_size",
]


def get_tensor_model_parallel_world_size() -> int:
    """Return 1."""
    return 1


def get_tensor_model_parallel_rank() -> int:
    """Return 0."""
    return 0


def get_tensor_model_parallel_group() -> SimpleNamespace:
    """Return a group without members: a group of one exchanges nothing."""
    return SimpleNamespace(device_group=None)
