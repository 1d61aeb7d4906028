"""What pages that load nothing from the network need: files as URLs, and hashes for their security policy."""

from __future__ import annotations

import hashlib
from base64 import b64encode

__all__ = ["data_uri", "source_hash"]


def data_uri(data: bytes, media_type: str) -> str:
    """Return a file as a ``data:`` URL.

    Example:
        >>> data_uri(b"GIF", "image/gif")
        'data:image/gif;base64,R0lG'
    """
    return f"data:{media_type};base64,{b64encode(data).decode()}"


def source_hash(text: str) -> str:
    """Return the source expression of a content security policy that allows one inline script or style."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
