"""Version of the replacement for vLLM. EasyR1 reads it, and the guard distinguishes it from vLLM's own."""

from __future__ import annotations

from typing import Final

__all__ = ["MARK", "VERSION"]

#: The oldest version that EasyR1 accepts; the suffix marks the replacement.
VERSION: Final = "0.8.5+lad.reasoner"

#: Keyword in the package metadata of the replacement.
MARK: Final = "lad-reasoner-stand-in"
