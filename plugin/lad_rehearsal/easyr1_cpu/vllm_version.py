"""The version that the stand-in for vLLM gives itself: EasyR1 reads it, and the guard tells it from vLLM's own."""

from __future__ import annotations

from typing import Final

__all__ = ["MARK", "VERSION"]

#: The oldest that EasyR1 accepts; the suffix says what it is.
VERSION: Final = "0.8.5+lad.reasoner"

#: Marks the package metadata that a rehearsal writes beside the stand-in.
MARK: Final = "lad-reasoner-stand-in"
