"""Images on their way to a model: decoded, turned upright, resized, encoded for a server."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING, Final

from lad_reasoner.pairs.tokens import ProcessorPixels, fit_processor
from lad_reasoner.support.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["data_url", "decode_picture"]

#: What every server of vision-language models reads.
_SERVED: Final = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}


def decode_picture(data: bytes, *, where: str) -> Picture:
    """Decode an image to RGB, turned as its EXIF orientation says.

    Raises:
        DataError: The bytes are no readable image.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with Pillow.open(BytesIO(data)) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise DataError(where, found=f"an unreadable image ({error})", expected="PNG, JPEG or WebP") from error


def data_url(data: bytes, *, pixels: ProcessorPixels | None, where: str) -> str:
    """Return an image as a ``data:`` URL.

    Args:
        data: The encoded image.
        pixels: Resize to what this rule says, so that a server's own processor leaves it alone; None sends the file as
            it is.
        where: What to call it in an error.

    Raises:
        DataError: The bytes are no readable image.
    """
    from PIL import Image as Pillow

    picture = decode_picture(data, where=where)
    kind = next((name for start, name in _SERVED.items() if data.startswith(start)), None)
    if pixels is not None:
        size = fit_processor(*picture.size, pixels)
        picture, kind = picture.resize(size, Pillow.Resampling.BICUBIC), kind if size == picture.size else None
    if kind is None:
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        data, kind = buffer.getvalue(), "png"
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
