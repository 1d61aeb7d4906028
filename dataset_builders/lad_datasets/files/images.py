"""Images as trainers will read them: what is broken is refused, what would be misread is put right.

EasyR1, verl and LLaMA-Factory open an image with Pillow and convert it to RGB, nothing more. So an EXIF rotation is
ignored, a 16-bit image saturates to white, an alpha channel uncovers hidden pixels. Such an image is decoded, put
right and encoded again; every other is passed on byte for byte.
"""

from __future__ import annotations

import hashlib
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from lad_reasoner.pairs.tokens import MAX_ASPECT_RATIO, QWEN2_5_VL, ProcessorPixels, fit_processor
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.files import write_bytes

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "MAX_IMAGE_PIXELS",
    "Encoding",
    "ImageFormat",
    "ImageStore",
    "Loaded",
    "decode",
    "load",
    "load_bytes",
    "same_picture",
    "sha256",
]

ImageFormat = Literal["png", "jpeg", "webp"]

#: Our choice: twenty times the largest image of the datasets (1,734,000 pixels) is no photograph of a part.
MAX_IMAGE_PIXELS: Final = 64 * 1024 * 1024

#: Modes that ``convert("RGB")`` turns into what a person sees.
_FAITHFUL_MODES: Final = frozenset({"1", "L", "P", "RGB"})

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_SCAN: Final = b"\xff\xda"
_JPEG_END: Final = b"\xff\xd9"
_EXIF_ORIENTATION: Final = 0x0112
_PNG_EXIF_MARKS: Final = (b"Raw profile type", b"tiff:Orientation")
_PNG_TEXT_CHUNKS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})


@dataclass(frozen=True, slots=True)
class Encoding:
    """How an image is made smaller and written again.

    Attributes:
        max_pixels: Largest area; a larger image is shrunk to the size that Qwen2.5-VL's processor would choose for
            this bound, so that it is resampled once. None leaves every size alone.
        format: What a changed image is written as.
        quality: Of JPEG and WebP, 1 to 100.
    """

    max_pixels: int | None = None
    format: ImageFormat = "png"
    quality: int = 95


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image file, read and found sound.

    Attributes:
        data: As it goes to the trainers.
        sha256: Hex digest of the file as it was.
        repairs: What was put right, such as "EXIF rotation"; empty for an image that is passed on or only shrunk.
    """

    data: bytes
    sha256: str
    repairs: tuple[str, ...]


def sha256(data: bytes) -> str:
    """Return the hex digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


class ImageStore:
    """Images shrunk by an earlier, interrupted build, by the digest of their source.

    Args:
        folder: Where they lie; made when the first is kept. It belongs to one encoding.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, digest: str) -> bytes | None:
        """Return an image's bytes if it was kept."""
        path = self._folder / digest
        return path.read_bytes() if path.is_file() else None

    def put(self, digest: str, data: bytes) -> None:
        """Keep an image; it appears whole or not at all."""
        write_bytes(self._folder / digest, data, durable=False)


def load(path: Path, encoding: Encoding = Encoding(), store: ImageStore | None = None) -> Loaded:
    """Read an image file for training.

    Args:
        path: The file.
        encoding: How it is shrunk.
        store: Where shrunk images are kept and looked up.

    Raises:
        DataError: It is absent, empty, truncated, corrupt, no image or too large.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, found=f"no readable file ({error.strerror})", expected="an image") from error
    return load_bytes(data, path, encoding, store)


def load_bytes(data: bytes, where: object, encoding: Encoding = Encoding(), store: ImageStore | None = None) -> Loaded:
    """Read an encoded image for training; as ``load``, with ``where`` for the error.

    Raises:
        DataError: It is empty, truncated, corrupt, no image or too large.
    """
    digest = sha256(data)
    with _open(data, where) as image:
        exif = _scan_png(data, where) if image.format == "PNG" else True
        repairs = _faults(image, exif=exif)
        size = _target_size(image.size, encoding.max_pixels)
        if not repairs and size == image.size:
            if image.format != "PNG":
                _load_pixels(image, where)
            return Loaded(data, digest, repairs)
        if store is not None and (kept := store.get(digest)) is not None:
            return Loaded(kept, digest, repairs)
        pixels = _faithful(_load_pixels(image, where))
    shrunk = _encode(_shrink(pixels, encoding.max_pixels), encoding)
    if store is not None:
        store.put(digest, shrunk)
    return Loaded(shrunk, digest, repairs)


def _shrink(image: Image.Image, max_pixels: int | None) -> Image.Image:
    from PIL import Image

    size = _target_size(image.size, max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def decode(data: bytes, where: object) -> Image.Image:
    """Return an image as people see it: upright, 8-bit, RGB or grey, without alpha.

    Args:
        data: The encoded file.
        where: Its path, for the error.

    Raises:
        DataError: The bytes are no sound image, or too many pixels.
    """
    with _open(data, where) as image:
        return _faithful(_load_pixels(image, where))


def same_picture(first: bytes, second: bytes) -> bool:
    """Tell whether two sound images show the same pixels, however they are encoded."""
    from PIL import ImageChops

    one, two = (decode(data, "an image").convert("RGB") for data in (first, second))
    return one.size == two.size and ImageChops.difference(one, two).getbbox() is None


def _open(data: bytes, where: object) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise DataError(where, found="a file of zero bytes", expected="an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is judged below
            image = Image.open(BytesIO(data))
    except UnidentifiedImageError:
        raise DataError(
            where, found="no known image format", expected="a PNG, JPEG, WebP, BMP or TIFF image"
        ) from None
    except Image.DecompressionBombError as error:
        raise DataError(where, found=f"a decompression bomb ({error})", expected=_size_limit()) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(where, found=f"a corrupt image ({error})", expected="an image that decodes") from error
    if image.width * image.height > MAX_IMAGE_PIXELS:
        size = f"{image.width}x{image.height} pixels, possibly a decompression bomb"
        raise DataError(where, found=size, expected=_size_limit())
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        size = f"an image of {image.width}x{image.height} pixels"
        raise DataError(where, found=size, expected=f"one side at most {MAX_ASPECT_RATIO} times the other")
    # Pillow may forgive a missing end. After the last start of scan these two bytes can be nothing else.
    if image.format == "JPEG" and _JPEG_END not in data[data.rfind(_JPEG_SCAN) :]:
        raise DataError(where, found="a truncated JPEG", expected="an end-of-image mark")
    return image


def _size_limit() -> str:
    return f"at most {MAX_IMAGE_PIXELS:,} pixels"


def _load_pixels(image: Image.Image, where: object) -> Image.Image:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise DataError(where, found=f"a corrupt image ({error})", expected="an image that decodes") from error
    return image


def _scan_png(data: bytes, where: object) -> bool:
    """Find truncation and corruption by the checksums, which costs no decoding; tell whether there is EXIF.

    Raises:
        DataError: A chunk is cut or does not have its checksum.
    """
    view = memoryview(data)
    end = len(_PNG_SIGNATURE)
    kind = b""
    exif = False
    while kind != b"IEND":
        length, kind = int.from_bytes(data[end : end + 4]), data[end + 4 : end + 8]
        start, end = end + 4, end + 12 + length
        if end > len(data):
            raise DataError(where, found="a truncated PNG", expected="an IEND chunk")
        if zlib.crc32(view[start : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise DataError(where, found=f"a corrupt PNG (checksum of {kind!r})", expected="an image that decodes")
        text = data[start : end - 4] if kind in _PNG_TEXT_CHUNKS else b""
        exif = exif or kind == b"eXIf" or any(mark in text for mark in _PNG_EXIF_MARKS)
    return exif


def _faults(image: Image.Image, *, exif: bool) -> tuple[str, ...]:
    """Name what a plain ``convert("RGB")`` would get wrong.

    Args:
        image: Opened, not decoded.
        exif: Whether it may have EXIF: Pillow decodes a whole PNG to look for it behind the pixels.
    """
    faults = []
    if exif and image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        faults.append("EXIF rotation")
    if image.mode.startswith(("I", "F")):
        faults.append("more than 8 bits a channel")
    elif "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "RGBa", "La"}:
        faults.append("alpha channel")
    elif image.mode not in _FAITHFUL_MODES:
        faults.append(f"{image.mode} colours")
    return tuple(faults)


def _faithful(image: Image.Image) -> Image.Image:
    """Return the image upright, in L or RGB, transparent pixels white."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _to_8_bit(image)
    if "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "RGBa", "La"}:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale linearly: the full range of 16 bits to that of 8, or the image's own range if it leaves 16 bits."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    low, high = (0.0, 65535.0) if values.min() >= 0 and values.max() <= 65535 else (values.min(), values.max())
    scaled = (values - low) / (high - low) * 255.0
    return Image.fromarray(np.round(scaled).astype(np.uint8))


def _target_size(size: tuple[int, int], max_pixels: int | None) -> tuple[int, int]:
    width, height = size
    if max_pixels is None or width * height <= max_pixels:
        return width, height
    pixels = ProcessorPixels(QWEN2_5_VL.factor, min_pixels=1, max_pixels=max_pixels)
    return fit_processor(width, height, pixels)


def _encode(image: Image.Image, encoding: Encoding) -> bytes:
    out = BytesIO()
    if encoding.format == "png":
        image.save(out, "PNG")
    elif encoding.format == "jpeg":
        image.save(out, "JPEG", quality=encoding.quality, subsampling=0)
    else:
        image.save(out, "WEBP", quality=encoding.quality)
    return out.getvalue()
