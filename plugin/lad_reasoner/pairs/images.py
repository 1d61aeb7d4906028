"""Image files: the only reader and decoder, with its limits.

Whatever a name says, only PNG, JPEG, WebP, BMP and TIFF are opened (and HEIC where pillow-heif is installed), only
from regular files, and only up to ``MAX_IMAGE_PIXELS`` or what LAD_MAX_MEGAPIXELS allows.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
import zlib
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from lad_reasoner.pairs.tokens import MAX_ASPECT_RATIO, ProcessorPixels, fit_processor
from lad_reasoner.support.errors import DataError, UsageError, install_hint
from lad_reasoner.support.web import data_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

__all__ = [
    "ALPHA_MODES",
    "LIMIT_VARIABLE",
    "MAX_IMAGE_BYTES",
    "MAX_IMAGE_PIXELS",
    "data_url",
    "decode",
    "decode_mask",
    "exif_rotation",
    "image_formats",
    "image_size",
    "load_pixels",
    "mask_overlay",
    "open_image",
    "read_image_bytes",
    "to_faithful",
]

#: Our choice: more than thirty times the largest image of the datasets (2,048,000 pixels).
MAX_IMAGE_PIXELS: Final = 64 * 1024 * 1024

#: The environment variable that raises the limit, in millions of pixels, up to where Pillow refuses an image itself.
LIMIT_VARIABLE: Final = "LAD_MAX_MEGAPIXELS"
_HIGHEST_LIMIT: Final = 178

#: Our choice: twice the largest allowed image, uncompressed with four channels of 16 bits.
MAX_IMAGE_BYTES: Final = 1 << 30

#: Of a mask's area in an overlay: 22%, so that what lies below stays visible.
_MASK_OPACITY: Final = 56

_JPEG_SCAN: Final = b"\xff\xda"
_JPEG_END: Final = b"\xff\xd9"

#: How files begin that stand for an image which has not been downloaded, and how to get it.
_POINTERS: Final = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, not the image; run: git lfs pull",
    b"/annex/objects/": "a git-annex pointer, not the image; run: git annex get",
}

#: How HEIC and HEIF files begin, after four bytes.
_HEIC_STARTS: Final = frozenset({b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"})

_ORIENTATION: Final = 0x0112
_PNG_EXIF: Final = (b"eXIf", b"Raw profile type", b"tiff:Orientation")

#: What every server of vision-language models reads.
_SERVED: Final = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}

#: Pixel modes with an alpha channel.
ALPHA_MODES: Final = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})


class _StrictDecoding:
    """Makes Pillow reject truncated images, in any thread, even if another library has set it to accept them."""

    def __init__(self) -> None:
        self._lock, self._running, self._others_choice = Lock(), 0, False

    def __enter__(self) -> None:
        from PIL import ImageFile

        with self._lock:
            if not self._running:
                self._others_choice, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self._running += 1

    def __exit__(self, *_: object) -> None:
        from PIL import ImageFile

        with self._lock:
            self._running -= 1
            if not self._running:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._others_choice


_strict_decoding: Final = _StrictDecoding()


@cache
def image_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are opened."""
    formats = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
    if find_spec("pillow_heif") is None:
        return formats
    import_module("pillow_heif").register_heif_opener()
    return (*formats, "HEIF")


def read_image_bytes(path: Path, *, where: object = None, remedy: str = "") -> bytes:
    """Return the bytes of an image file; devices, pipes and folders are not opened.

    ``where`` is what errors call it, by default its path, and ``remedy`` what they advise.

    Raises:
        DataError: It is absent, no regular file, larger than ``MAX_IMAGE_BYTES``, or not readable.
    """
    where = where or path
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise DataError("not a regular file", where=where, remedy=remedy)
        if facts.st_size > MAX_IMAGE_BYTES:
            raise DataError(f"{facts.st_size:,} bytes are too many for an image", where=where)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        raise DataError(f"no readable file ({reason})", where=where, remedy=remedy) from error


def open_image(data: bytes, where: object) -> Picture:
    """Open an encoded image and judge its header; its pixels are not decoded.

    Raises:
        DataError: It is empty, of another format, cut, too large, or too long for a processor.
    """
    image = _open(data, where)
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        problem = f"one side of {image.width}x{image.height} pixels is more than {MAX_ASPECT_RATIO} times the other"
        raise DataError(problem, where=where)
    # Pillow may forgive a missing end. After the last start of scan these two bytes can be nothing else.
    if image.format == "JPEG" and _JPEG_END not in data[data.rfind(_JPEG_SCAN) :]:
        raise DataError("a truncated JPEG image", where=where)
    return image


def _open(data: bytes, where: object) -> Picture:
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise DataError("a file of zero bytes", where=where)
    for start, problem in _POINTERS.items():
        if data.startswith(start):
            raise DataError(problem, where=where)
    try:
        with _strict_decoding, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is judged below; broken metadata is no fault of the pixels
            image = Image.open(BytesIO(data), formats=image_formats())
    except UnidentifiedImageError:
        if data[4:12] in _HEIC_STARTS:
            problem = "a HEIC photo, for which pillow-heif is not installed"
            raise DataError(problem, where=where, remedy=install_hint("heic")) from None
        names = ", ".join(image_formats())
        raise DataError(f"no readable image: no known image format (of {names})", where=where) from None
    except Image.DecompressionBombError as error:
        raise DataError(f"possibly a decompression bomb ({error})", where=where) from error
    except Exception as error:  # Pillow's plugins raise anything on broken headers
        raise DataError(f"a corrupt image ({error})", where=where) from error
    if (pixels := image.width * image.height) > (limit := _pixel_limit()):
        size = f"{image.width}x{image.height} pixels, possibly a decompression bomb"
        needed = -(-pixels // 1_000_000)
        remedy = f"If it is a photo of yours, set {LIMIT_VARIABLE}={needed}" if needed <= _HIGHEST_LIMIT else ""
        raise DataError(f"{pixels:,} pixels ({size}), more than {limit:,}", where=where, remedy=remedy)
    if min(image.size) < 1:
        raise DataError(f"an image of {image.width}x{image.height} pixels", where=where)
    return image


def _pixel_limit() -> int:
    """Return the most pixels that an image may have."""
    given = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not given:
        return MAX_IMAGE_PIXELS
    if not re.fullmatch("[0-9]{1,3}", given) or not 1 <= int(given) <= _HIGHEST_LIMIT:
        raise UsageError(f"{given[:20]!r} is not a whole number from 1 to {_HIGHEST_LIMIT}", where=LIMIT_VARIABLE)
    return int(given) * 1_000_000


def load_pixels(image: Picture, where: object) -> Picture:
    """Decode an opened image.

    Raises:
        DataError: It is corrupt or cut.
    """
    try:
        with _strict_decoding:
            image.load()
    except (OSError, SyntaxError, ValueError, zlib.error, EOFError, IndexError, KeyError, OverflowError) as error:
        raise DataError(f"a corrupt image ({error})", where=where) from error
    return image


def image_size(data: bytes, where: object) -> tuple[int, int]:
    """Return width and height, from the header alone.

    Raises:
        DataError: It is not an image that can be opened.
    """
    with _open(data, where) as image:
        return image.size


def exif_rotation(data: bytes, where: object) -> tuple[int, tuple[int, int]]:
    """Return the orientation that EXIF states, from 1 (upright) to 8, and the width and height of the upright image.

    Raises:
        DataError: It is not an image that can be opened.
    """
    with _open(data, where) as image:
        found = 1
        # Of a PNG without these words Pillow would decode the pixels to search behind them.
        if image.format != "PNG" or any(mark in data for mark in _PNG_EXIF):
            with suppress(Exception):  # broken metadata is no fault of the pixels
                found = int(image.getexif().get(_ORIENTATION, 1))
        is_swapped = 5 <= found <= 8 and image.format != "TIFF"  # Pillow turns TIFF itself
        return (found if 1 <= found <= 8 else 1), (image.size[::-1] if is_swapped else image.size)


def decode(data: bytes, where: object) -> Picture:
    """Return an image as people see it: upright, 8-bit RGB, transparent pixels white.

    Raises:
        DataError: It is not a sound image, or too large.
    """
    with open_image(data, where) as image:
        return to_faithful(load_pixels(image, where), where).convert("RGB")


def to_faithful(image: Picture, where: object) -> Picture:
    """Return a decoded image upright, in L or RGB, transparent pixels white.

    Raises:
        DataError: Its values are not numbers, or all the same in more than 8 bits.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _to_8_bit(image, where)
    if "transparency" in image.info or image.mode in ALPHA_MODES:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def _to_8_bit(image: Picture, where: object) -> Picture:
    """Scale linearly to 8 bits: from 0 to 65535 (floats also from 0 to 1 or 255), else from the image's own range."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError("pixel values that are not numbers (NaN or infinite)", where=where)
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise DataError(f"every pixel has the value {low:g}", where=where)
    tops = (1.0, 255.0, 65535.0) if image.mode.startswith("F") else (65535.0,)
    if low >= 0 and high <= tops[-1]:
        low, high = 0.0, next(top for top in tops if high <= top)
    return Image.fromarray(np.round((values - low) / (high - low) * 255.0).astype(np.uint8))


def decode_mask(data: bytes, where: object) -> NDArray[np.uint8]:
    """Return a mask's values, (height, width): the largest of its colour channels, without alpha.

    A mask of 16 bits is scaled to 8: 257 means 1, and 65535 means 255. One whose values all fit into 8 bits is kept.

    Raises:
        DataError: It is not a sound image, or too large.
    """
    import numpy as np

    with _open(data, where) as image:
        loaded = load_pixels(image, where)
        if loaded.mode.startswith(("I", "F")):
            deep = np.nan_to_num(np.asarray(loaded, dtype=np.float64))
            return (deep / (257 if deep.max() > 255 else 1)).round().clip(deep > 0, 255).astype(np.uint8)
        values: NDArray[np.uint8] = np.asarray(loaded.convert("RGB")).max(axis=2)
        # A palette may be all black: then its indices are the values.
        return values if values.any() or loaded.mode != "P" else np.asarray(loaded)


def data_url(data: bytes, *, pixels: ProcessorPixels | None, where: object) -> str:
    """Return an encoded image as a ``data:`` URL.

    It is resized by the rule ``pixels``, so that a server's own processor leaves it alone; without one, a PNG or JPEG
    is sent as it is.

    Raises:
        DataError: It is not a sound image, or too large.
    """
    from PIL import Image as Pillow

    picture = decode(data, where)
    kind = next((name for start, name in _SERVED.items() if data.startswith(start)), None)
    if pixels is not None:
        size = fit_processor(*picture.size, pixels)
        picture, kind = picture.resize(size, Pillow.Resampling.BICUBIC), kind if size == picture.size else None
    if kind is None:
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        data, kind = buffer.getvalue(), "png"
    return data_uri(data, f"image/{kind}")


def mask_overlay(masks: Sequence[NDArray[np.uint8]], edge: int, *, color: tuple[int, int, int]) -> Picture:
    """Return the masks' union as a layer for a picture: a tinted area with an outline, transparent elsewhere.

    The masks, of which there is at least one, are anomalous where not 0; ``edge`` is the layer's longest in pixels.
    """
    from PIL import Image, ImageChops, ImageFilter

    areas = [Image.fromarray(mask).point(lambda value: 255 * (value > 0)) for mask in masks]
    union = areas[0]
    for other in areas[1:]:
        union = ImageChops.lighter(union, other.resize(union.size))
    union.thumbnail((edge, edge))
    area = union.point(lambda value: 255 * (value > 0))  # a mask of a few pixels must survive being made small
    outline = ImageChops.subtract(area.filter(ImageFilter.MaxFilter(5)), area)
    layer = Image.new("RGBA", area.size, color)
    layer.putalpha(ImageChops.lighter(area.point(lambda value: _MASK_OPACITY * (value > 0)), outline))
    return layer
