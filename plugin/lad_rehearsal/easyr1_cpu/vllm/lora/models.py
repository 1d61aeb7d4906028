"""A class that EasyR1 uses in annotations."""

__all__ = ["LoRAModel"]


class LoRAModel:
    """vLLM's adapter in memory; never created here."""
