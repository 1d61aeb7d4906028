"""How an image looks, as 256 bits: a perceptual hash that survives scaling and compression."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from lad_datasets.sources.samples import Sample, Tree
from lad_reasoner.pairs.images import decode, read_image_bytes
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.progress import track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["HASH_BITS", "look_of", "read_looks"]

_SIDE: Final = 16
HASH_BITS: Final = _SIDE * _SIDE


def look_of(data: bytes, where: object) -> NDArray[np.uint64]:
    """Return the perceptual hash (DCT) of an encoded image, four 64-bit words.

    Raises:
        DataError: The bytes are no sound image.
    """
    import imagehash
    import numpy as np

    bits = imagehash.phash(decode(data, where), hash_size=_SIDE).hash
    return np.packbits(bits.ravel()).view(np.uint64)


def read_looks(
    tree: Tree, samples: Sequence[Sample], *, workers: int
) -> tuple[dict[str, NDArray[np.uint64]], list[DataError]]:
    """Return the perceptual hash of each sample by its path, and what is wrong with those that have none."""

    def read(sample: Sample) -> NDArray[np.uint64] | DataError:
        path = tree.file(sample)
        try:
            return look_of(read_image_bytes(path), path)
        except DataError as fault:
            return fault

    looks, faults = {}, []
    with ThreadPoolExecutor(workers) as pool:
        for sample, look in zip(
            samples, track(pool.map(read, samples), total=len(samples), description="looks"), strict=True
        ):
            if isinstance(look, DataError):
                faults.append(look)
            else:
                looks[sample.path] = look
    return looks, faults
