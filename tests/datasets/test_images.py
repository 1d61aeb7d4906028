"""Images of real disks: broken ones are refused by name, misleading ones are put right, all others pass untouched."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lad_datasets.files.images import Encoding, ImageStore, decode, load, load_bytes, sha256
from lad_reasoner.pairs.tokens import QWEN2_5_VL, ProcessorPixels, fit_processor
from lad_reasoner.support.errors import DataError


def picture(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    """A picture whose left half is red and whose top left corner is blue."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] = (200, 10, 10)
    pixels[: height // 4, : width // 4] = (10, 10, 200)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (picture(), "PNG"),
        (picture(mode="L"), "PNG"),
        (picture(mode="P"), "PNG"),
        (picture(mode="1"), "PNG"),
        (picture(), "JPEG"),
        (picture(), "WEBP"),
        (picture(), "BMP"),
        (picture(), "TIFF"),
    ],
)
def test_what_trainers_read_right_passes_byte_for_byte(image, kind) -> None:
    data = encoded(image, kind)
    loaded = load_bytes(data, "x")
    assert loaded.data == data
    assert loaded.sha256 == sha256(data)
    assert loaded.repairs == ()


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)))


def rotated(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    return encoded(picture(), kind, exif=exif)


def see_through() -> bytes:
    image = picture(mode="RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)[None].repeat(48, 0)))
    return encoded(image)


@pytest.mark.parametrize(
    ("data", "repair", "size"),
    [
        (rotated("JPEG"), "EXIF rotation", (48, 64)),
        (rotated("PNG"), "EXIF rotation", (48, 64)),
        (encoded(picture(mode="CMYK"), "JPEG"), "CMYK colours", (64, 48)),
        (sixteen_bits(), "more than 8 bits a channel", (64, 48)),
        (encoded(picture(mode="F"), "TIFF"), "more than 8 bits a channel", (64, 48)),
        (see_through(), "alpha channel", (64, 48)),
        (encoded(picture(mode="LA")), "alpha channel", (64, 48)),
        (encoded(picture(mode="P"), transparency=0), "alpha channel", (64, 48)),
        (encoded(picture(mode="LAB"), "TIFF"), "LAB colours", (64, 48)),
    ],
)
def test_what_trainers_would_misread_is_put_right_and_named(data, repair, size) -> None:
    loaded = load_bytes(data, "x")
    assert loaded.repairs == (repair,)
    assert loaded.sha256 == sha256(data)
    assert load_bytes(loaded.data, "x").repairs == ()
    read = Image.open(BytesIO(loaded.data))
    assert read.size == size
    assert read.mode in {"L", "RGB"}


def test_the_repairs_show_what_a_person_sees() -> None:
    turned = np.asarray(Image.open(BytesIO(load_bytes(rotated("PNG"), "x").data)))
    assert turned[2, -2].tolist() == [10, 10, 200]  # the blue corner has moved to the top right
    ramp = np.asarray(Image.open(BytesIO(load_bytes(sixteen_bits(), "x").data)))
    assert (ramp.min(), ramp.max()) == (0, 255)
    assert abs(float(ramp.mean()) - 127.5) < 1
    over_white = np.asarray(Image.open(BytesIO(load_bytes(see_through(), "x").data)))
    assert over_white[40, 2].tolist() == [255, 255, 255]


def bomb() -> bytes:
    """A PNG that claims 40,000 x 40,000 pixels."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def flipped(data: bytes) -> bytes:
    """Change one byte in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "a file of zero bytes"),
        (b"not an image at all", "no known image format"),
        (encoded(NOISE)[:-30], "a truncated PNG"),
        (encoded(NOISE)[:50_000], "a truncated PNG"),
        (flipped(encoded(NOISE)), "a corrupt PNG"),
        (encoded(NOISE, "JPEG")[:5000], "image"),
        (encoded(NOISE, "JPEG")[:-2], "image"),
        (encoded(NOISE, "WEBP")[:5000], "image"),
        (encoded(NOISE, "BMP")[:5000], "a corrupt image"),
        (bomb(), "decompression bomb"),
        (encoded(Image.new("1", (8193, 8193))), "8193x8193 pixels, possibly a decompression bomb"),
    ],
)
def test_what_is_broken_is_refused_by_name(tmp_path, data, found) -> None:
    path = tmp_path / "häßlich.png"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert found in str(caught.value)
    with pytest.raises(DataError):
        load(path, Encoding(max_pixels=1000))


def test_an_absent_file_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match="no readable file"):
        load(tmp_path / "none.png")


@settings(deadline=None, max_examples=50)  # a busy machine is no fault
@given(st.binary(max_size=300))
def test_any_bytes_give_an_image_or_an_error(data) -> None:
    with pytest.raises(DataError):
        load_bytes(data, "x")


@settings(deadline=None, max_examples=50)  # a busy machine is no fault
@given(cut=st.integers(1, 8000))
def test_no_truncation_passes(cut) -> None:
    for kind in ("PNG", "JPEG"):
        data = encoded(NOISE.crop((0, 0, 60, 60)), kind)
        with pytest.raises(DataError):
            load_bytes(data[: max(0, len(data) - cut)], "x")


@settings(deadline=None, max_examples=50)  # a busy machine is no fault
@given(st.integers(30, 1200), st.integers(30, 1200), st.integers(784, 500_000))
def test_shrinking_keeps_to_the_processors_rule(width, height, max_pixels) -> None:
    data = encoded(Image.new("L", (width, height)))
    size = decode(load_bytes(data, "x", Encoding(max_pixels)).data, "x").size
    if width * height <= max_pixels:
        assert size == (width, height)
        return
    assert size == fit_processor(width, height, ProcessorPixels(28, 1, max_pixels))
    bounds = ProcessorPixels(QWEN2_5_VL.factor, 1, max(max_pixels, size[0] * size[1]))
    assert fit_processor(*size, bounds) == size  # the processor leaves it alone


def test_formats_and_quality() -> None:
    data = encoded(NOISE.resize((400, 400)))
    sizes = {
        (kind, quality): len(load_bytes(data, "x", Encoding(40_000, kind, quality)).data)
        for kind, quality in (("png", 95), ("jpeg", 95), ("jpeg", 50), ("webp", 95), ("webp", 50))
    }
    assert sizes["jpeg", 50] < sizes["jpeg", 95] < sizes["png", 95]
    assert sizes["webp", 50] < sizes["webp", 95]
    assert Image.open(BytesIO(load_bytes(data, "x", Encoding(40_000, "webp")).data)).format == "WEBP"


def test_a_kept_image_is_not_shrunk_again(tmp_path: Path) -> None:
    data = encoded(picture())
    store = ImageStore(tmp_path / "store")
    first = load_bytes(data, "x", Encoding(1000), store)
    (kept,) = (tmp_path / "store").iterdir()
    assert kept.name == sha256(data)
    assert kept.read_bytes() == first.data
    kept.write_bytes(b"what was kept")
    assert load_bytes(data, "x", Encoding(1000), store).data == b"what was kept"
