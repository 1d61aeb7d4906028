"""What identifies the model in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["model_digest"]


def model_digest(folder: Path) -> str | None:
    """Return a digest of a local model's configuration and weights; None if it is no folder.

    Of each weight file the size and the first and last MiB are read: training changes every tensor, and reading all of
    a large model would take longer than asking it.
    """
    if not folder.is_dir():
        return None
    digest, edge = hashlib.sha256(), 1 << 20
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            size = file.stat().st_size
            digest.update(f"{file.name}\n{size}\n".encode() + stream.read(edge))
            stream.seek(max(size - edge, 0))
            digest.update(stream.read(edge))
    return digest.hexdigest()
