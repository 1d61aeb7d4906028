"""How an image looks, as 256 bits: a perceptual hash (DCT) that survives scaling and compression.

A copy that was also turned, mirrored, cropped or padded is found by comparing variants: the eight orientations of one
image, with and without its uniform border, with the other cropped by 0, 2.5 or 5% on each side.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from lad_datasets.sources.samples import Sample, Tree
from lad_reasoner.pairs.images import decode, read_image_bytes
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.progress import track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

__all__ = ["CROPS", "HASH_BITS", "look_of", "looks_of_crops", "looks_of_orientations", "read_looks"]

_SIDE: Final = 16
HASH_BITS: Final = _SIDE * _SIDE

#: Side of the picture that is transformed, and of the one that crops are taken from.
_PIXELS: Final = 4 * _SIDE
_CROPPED_PIXELS: Final = 400

#: Left, top, right and bottom parts that are cut off.
CROPS: Final = tuple(product((0.0, 0.025, 0.05), repeat=4))

#: Grey values of a uniform border differ by no more than this, from compression.
_BORDER_NOISE: Final = 12


def look_of(data: bytes, where: object) -> NDArray[np.uint64]:
    """Return the perceptual hash of an encoded image, four 64-bit words."""
    words: NDArray[np.uint64] = _hash([_shrink(_grey(data, where))])[0]
    return words


def looks_of_orientations(data: bytes, where: object) -> NDArray[np.uint64]:
    """Return the hashes of the eight orientations of an image, and of it without its uniform border: (8 or 16, 4)."""
    import numpy as np

    image = _grey(data, where)
    inner = _without_border(image)
    pixels = [_shrink(picture) for picture in ((image,) if inner is None else (image, inner))]
    return _hash([np.rot90(side, turns) for own in pixels for side in (own, own[:, ::-1]) for turns in range(4)])


def looks_of_crops(data: bytes, where: object) -> NDArray[np.uint64]:
    """Return the hashes of an image cropped in each way of ``CROPS``: (81, 4)."""
    image = _grey(data, where)
    whole = _shrink(image)
    image.thumbnail((_CROPPED_PIXELS, _CROPPED_PIXELS))
    width, height = image.size
    boxes = [(left * width, top * height, (1 - right) * width, (1 - low) * height) for left, top, right, low in CROPS]
    return _hash([whole, *(_shrink(image, box) for box in boxes[1:])])


def _grey(data: bytes, where: object) -> Picture:
    return decode(data, where).convert("L")


def _shrink(image: Picture, box: tuple[float, float, float, float] | None = None) -> NDArray[Any]:
    import numpy as np
    from PIL import Image

    return np.asarray(image.resize((_PIXELS, _PIXELS), Image.Resampling.LANCZOS, box=box))


def _hash(pixels: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    """Return the signs of the lowest frequencies against their median, as 64-bit words."""
    import numpy as np
    from scipy.fft import dct

    frequencies = dct(dct(np.stack(pixels).astype(np.float64), axis=1), axis=2)
    low = frequencies[:, :_SIDE, :_SIDE].reshape(-1, HASH_BITS)
    return np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1).view(np.uint64)


def _without_border(image: Picture) -> Picture | None:
    """Return the part of an image inside its uniform border; None if it has none."""
    import numpy as np

    values = np.asarray(image).astype(np.int16)
    busy = np.abs(values - values[0, 0]) > _BORDER_NOISE
    rows, columns = np.flatnonzero(busy.any(axis=1)), np.flatnonzero(busy.any(axis=0))
    if not rows.size:
        return None
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return None if box == (0, 0, *image.size) else image.crop(box)


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
        found = track(pool.map(read, samples), total=len(samples), description="looks")
        for sample, look in zip(samples, found, strict=True):
            if isinstance(look, DataError):
                faults.append(look)
            else:
                looks[sample.path] = look
    return looks, faults
