"""One process samples for itself: see `parallel_state`."""

from . import parallel_state

__all__ = ["parallel_state"]
