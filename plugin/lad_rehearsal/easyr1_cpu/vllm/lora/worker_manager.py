"""A class that EasyR1 gives a method of its own, which the stand-in has no use for."""

__all__ = ["LRUCacheWorkerLoRAManager"]


class LRUCacheWorkerLoRAManager:
    """vLLM's loader of adapters; never made here."""
