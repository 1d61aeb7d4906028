"""Sampling uses a single process: see `parallel_state`."""

from . import parallel_state

__all__ = ["parallel_state"]
