"""A class to which EasyR1 adds a method that is not used here."""

__all__ = ["LRUCacheWorkerLoRAManager"]


class LRUCacheWorkerLoRAManager:
    """vLLM's loader of adapters; never created here."""
