"""Images as trainers will read them: what is broken is refused, what would be misread is put right.

EasyR1, verl and LLaMA-Factory open an image with Pillow and convert it to RGB, nothing more. So an EXIF rotation is
ignored, a 16-bit image saturates to white, an alpha channel uncovers hidden pixels. Such an image is decoded, put
right and encoded again; every other is passed on byte for byte.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from lad_reasoner.pairs.images import ALPHA_MODES, decode, load_pixels, open_image, read_image_bytes, to_faithful
from lad_reasoner.pairs.tokens import QWEN2_5_VL, ProcessorPixels, fit_processor
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.files import write_bytes

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Encoding", "ImageFormat", "ImageStore", "Loaded", "load", "load_bytes", "same_picture", "sha256"]

ImageFormat = Literal["png", "jpeg", "webp"]

#: Modes that ``convert("RGB")`` turns into what a person sees.
_FAITHFUL_MODES: Final = frozenset({"1", "L", "P", "RGB"})

#: What Pillow opens everywhere, and so every trainer.
_TRAINED_FORMATS: Final = frozenset({"PNG", "JPEG", "WEBP", "BMP", "TIFF"})

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
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
        quality: Quality of JPEG and WebP, 1 to 100.
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
    """Images shrunk by an earlier, interrupted build, by the digest of their source; a folder has one encoding."""

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
    """Read an image file for training; shrunk images are kept and looked up in the store.

    Raises:
        DataError: It is absent, empty, truncated, corrupt, no image or too large.
    """
    return load_bytes(read_image_bytes(path), path, encoding, store)


def load_bytes(data: bytes, where: object, encoding: Encoding = Encoding(), store: ImageStore | None = None) -> Loaded:
    """Read an encoded image for training; as ``load``, with ``where`` for the error."""
    digest = sha256(data)
    with open_image(data, where) as image:
        exif = _scan_png(data, where) if image.format == "PNG" else True
        repairs = _faults(image, exif=exif)
        size = _target_size(image.size, encoding.max_pixels)
        if not repairs and size == image.size:
            if image.format != "PNG":
                load_pixels(image, where)
            return Loaded(data, digest, repairs)
        if store is not None and (kept := store.get(digest)) is not None:
            return Loaded(kept, digest, repairs)
        pixels = to_faithful(load_pixels(image, where), where)
    shrunk = _encode(_shrink(pixels, encoding.max_pixels), encoding)
    if store is not None:
        store.put(digest, shrunk)
    return Loaded(shrunk, digest, repairs)


def _shrink(image: Image.Image, max_pixels: int | None) -> Image.Image:
    from PIL import Image

    size = _target_size(image.size, max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def same_picture(first: bytes, second: bytes) -> bool:
    """Return whether two sound images show the same pixels, however they are encoded."""
    from PIL import ImageChops

    one, two = (decode(data, "an image") for data in (first, second))
    return one.size == two.size and ImageChops.difference(one, two).getbbox() is None


def _scan_png(data: bytes, where: object) -> bool:
    """Refuse a cut or corrupt PNG by its checksums, which costs no decoding; return whether there is EXIF."""
    view = memoryview(data)
    end = len(_PNG_SIGNATURE)
    kind = b""
    exif = False
    while kind != b"IEND":
        length, kind = int.from_bytes(data[end : end + 4]), data[end + 4 : end + 8]
        start, end = end + 4, end + 12 + length
        if end > len(data):
            raise DataError("a truncated PNG", where=where)
        if zlib.crc32(view[start : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise DataError(f"a corrupt PNG (checksum of {kind!r})", where=where)
        text = data[start : end - 4] if kind in _PNG_TEXT_CHUNKS else b""
        exif = exif or kind == b"eXIf" or any(mark in text for mark in _PNG_EXIF_MARKS)
    return exif


def _faults(image: Image.Image, *, exif: bool) -> tuple[str, ...]:
    """Name what a plain ``convert("RGB")`` would get wrong of an image that is not decoded yet.

    ``exif`` is whether it may have EXIF: Pillow decodes a whole PNG to look for it behind the pixels.
    """
    faults = []
    if exif and image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        faults.append("EXIF rotation")
    if image.mode.startswith(("I", "F")):
        faults.append("more than 8 bits a channel")
    elif "transparency" in image.info or image.mode in ALPHA_MODES:
        faults.append("alpha channel")
    elif image.mode not in _FAITHFUL_MODES:
        faults.append(f"{image.mode} colours")
    if image.format not in _TRAINED_FORMATS:
        faults.append(f"{image.format} format")
    return tuple(faults)


def _target_size(size: tuple[int, int], max_pixels: int | None) -> tuple[int, int]:
    width, height = size
    if max_pixels is None or width * height <= max_pixels:
        return width, height
    pixels = ProcessorPixels(QWEN2_5_VL.factor, min_pixels=1, max_pixels=max_pixels)
    return fit_processor(width, height, pixels)


def _encode(image: Image.Image, encoding: Encoding) -> bytes:
    out = BytesIO()
    lossy = {"quality": encoding.quality}
    options = {"png": {}, "jpeg": {**lossy, "subsampling": 0}, "webp": lossy}[encoding.format]
    image.save(out, encoding.format, **options)
    return out.getvalue()
