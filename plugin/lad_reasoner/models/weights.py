"""The weights of a model, read without torch: safetensors headers, the number of parameters, a digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import DataError

__all__ = ["Tensor", "model_digest", "parameter_count", "read_header"]

#: Parameters of published models, as their pages on the Hugging Face hub count them; their names round down.
_PUBLISHED: Final[Mapping[str, float]] = {
    "qwen2-vl-2b": 2.21e9,
    "qwen2-vl-7b": 8.29e9,
    "qwen2.5-vl-3b": 3.75e9,
    "qwen2.5-vl-7b": 8.29e9,
    "qwen2.5-vl-72b": 73.4e9,
    "qwen3-vl-2b": 2.13e9,
    "qwen3-vl-4b": 4.44e9,
    "qwen3-vl-8b": 8.77e9,
}
_SIZE_IN_NAME: Final = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[bB](?![a-zA-Z])")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A weight, as the header of its file describes it; ``dtype`` is in its spelling: F32, BF16, F16, ..."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the weights of a safetensors file by name.

    Raises:
        DataError: The file is broken or incomplete.
        OSError: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():  # a FIFO would block
        raise DataError("not a regular file", where=path)
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            return {name: Tensor(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except SafetensorError as error:
        with path.open("rb") as stream:
            pointer = stream.read(64).startswith(b"version https://git-lfs")
        if pointer:
            raise DataError("a Git LFS pointer, not the file", where=path, remedy="Run `git lfs pull`") from error
        reason = str(error).rpartition("header: ")[2][:120]
        raise DataError(f"broken or incomplete ({reason})", where=path, remedy="Copy it again") from error


def parameter_count(model: str) -> int | None:
    """Return the number of parameters of a model: counted in its folder, else read from its name.

    The published Qwen-VL models have the count of their page; other names have the size that they state.

    Raises:
        DataError: A weight file of the folder is broken.

    Example:
        >>> parameter_count("Qwen/Qwen2.5-VL-3B-Instruct"), parameter_count("InternVL-1B"), parameter_count("mine")
        (3750000000, 1000000000, None)
    """
    folder = Path(model)
    if folder.is_dir() and (files := sorted(folder.glob("*.safetensors"))):
        return sum({name: tensor.size for file in files for name, tensor in read_header(file).items()}.values())
    name = re.sub(r"(?<=\d)_(?=\d)", ".", folder.name.lower()).replace("_", "-")  # qwen2_5_vl_3b, a run of SFT
    published = next(
        (count for known, count in _PUBLISHED.items() if re.search(rf"{re.escape(known)}(?!\w)", name)), None
    )
    size = _SIZE_IN_NAME.search(name)
    count = published or (float(size[1]) * 1e9 if size else None)
    return None if count is None else round(count)


def model_digest(folder: Path) -> str | None:
    """Return a digest of a local model's configuration and weights; None if it is not a folder.

    Of each weight file, the size and the first and last MiB are read: training changes every tensor, and reading a
    large model completely would take longer than asking it.
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
