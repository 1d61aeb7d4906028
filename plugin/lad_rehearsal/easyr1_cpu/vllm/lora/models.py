"""A name in EasyR1's annotations."""

__all__ = ["LoRAModel"]


class LoRAModel:
    """vLLM's adapter in memory; never made here."""
