"""Headers of safetensors files, read without torch: names, shapes and types of the weights, and whether all is there.

The format: eight bytes with the header's length, the header as JSON, the data
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import DataError

__all__ = ["Tensor", "read_header"]

#: The format's own bound on a header, in bytes.
_LARGEST_HEADER: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Tensor:
    """A weight, as its file's header describes it.

    Attributes:
        shape: Its extents.
        dtype: As safetensors writes it: F32, BF16, F16, ...
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file.

    Raises:
        DataError: It is no safetensors file, or shorter or longer than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_LARGEST_HEADER, size - 8):
            raise DataError(path, found="no whole header", expected="a safetensors file", remedy="copy it again")
        text = stream.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {name: Tensor(tuple(entry["shape"]), str(entry["dtype"])) for name, entry in header.items()}
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise DataError(path, found="a header that is no JSON of tensors", expected="a safetensors file") from None
    if size != 8 + length + end:
        raise DataError(
            path, found=f"{size:,} bytes", expected=f"{8 + length + end:,}, by its header", remedy="copy it again"
        )
    return tensors
