"""The only image decoder: which files it opens, and what it names instead of opening."""

from __future__ import annotations

import os
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile

from lad_reasoner.pairs import images
from lad_reasoner.pairs.images import data_url, decode, decode_mask, image_size, read_image_bytes
from lad_reasoner.support.errors import DataError, UsageError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n%%EOF\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def encoded(values: np.ndarray | Image.Image, kind: str) -> bytes:
    out = BytesIO()
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (EPS, "known image format"),
        (b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff;", "known image format"),
        (encoded(Image.new("RGB", (8, 8)), "PPM"), "known image format"),
        (POINTER, "Git LFS pointer"),
        (b"/annex/objects/SHA256E-s1--00.png\n", "git-annex pointer"),
        (b"", "zero bytes"),
    ],
)
@pytest.mark.parametrize("read", [decode, decode_mask, image_size])
def test_other_files_are_named_and_not_opened(monkeypatch, read, *, data, found) -> None:
    monkeypatch.setenv("PATH", "")  # no Ghostscript, should anything try
    with pytest.raises(DataError, match=found) as caught:
        read(data, "part.png")
    assert str(caught.value).startswith("part.png: ")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.full((8, 8), np.nan, dtype=np.float32), "not numbers"),
        (np.array([[0, np.inf]] * 8, dtype=np.float32), "not numbers"),
        (np.full((8, 8), 70000, dtype=np.int32), "every pixel has the value 70000"),
        (np.full((8, 8), 0.5, dtype=np.float32), "every pixel has the value 0.5"),
    ],
)
def test_a_picture_without_a_range_is_named(values, found) -> None:
    with pytest.raises(DataError, match=found):
        decode(encoded(values, "TIFF"), "x.tif")


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_floats_keep_their_scale(top) -> None:
    ramp = np.linspace(0, top / 2, 64, dtype=np.float32).reshape(8, 8)
    assert np.asarray(decode(encoded(ramp, "TIFF"), "x")).max() == 128


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_image_is_refused_whatever_pillow_accepts(monkeypatch, kind) -> None:
    """Other libraries in the process, such as some trainers, make Pillow fill what is missing with grey."""
    whole = encoded(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3), kind)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for length in (60, len(whole) // 2, len(whole) - 30):
        with pytest.raises(DataError):
            decode(whole[:length], "x.png")
        assert ImageFile.LOAD_TRUNCATED_IMAGES
    assert decode(whole, "x.png").size == (64, 64)


def test_devices_pipes_and_folders_are_not_read(tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "fifo.png", tmp_path / "folder.png", "/dev/zero"):
        with pytest.raises(DataError, match="not a regular file"):
            read_image_bytes(tmp_path / path)


@pytest.mark.parametrize("name", ["none.png", "null\0.png", "n" * 300 + ".png"])
def test_a_file_that_is_not_there_is_named(tmp_path, name) -> None:
    with pytest.raises(DataError, match="no readable file"):
        read_image_bytes(tmp_path / name)


def test_one_limit_for_every_reader(monkeypatch) -> None:
    data = encoded(Image.new("L", (60, 60)), "PNG")
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 3599)
    for read in (decode, decode_mask, image_size, lambda data, where: data_url(data, pixels=None, where=where)):
        with pytest.raises(DataError, match="3,600 pixels"):
            read(data, "x")


def test_the_limit_can_be_raised_for_large_photos_and_the_error_says_how(monkeypatch) -> None:
    data = encoded(Image.new("1", (9000, 9000)), "PNG")
    with pytest.raises(DataError, match=r"81,000,000 pixels .* set LAD_MAX_MEGAPIXELS=81"):
        image_size(data, "x")
    monkeypatch.setenv("LAD_MAX_MEGAPIXELS", "81")
    assert decode(data, "x").size == (9000, 9000)
    monkeypatch.setenv("LAD_MAX_MEGAPIXELS", "80")
    with pytest.raises(DataError, match="more than 80,000,000"):
        image_size(data, "x")


@pytest.mark.parametrize("value", ["0", "-1", "179", "1e9", "²", "many", "9" * 5000])
def test_a_limit_out_of_range_is_refused(monkeypatch, value) -> None:
    monkeypatch.setenv("LAD_MAX_MEGAPIXELS", value)
    with pytest.raises(UsageError, match=r"LAD_MAX_MEGAPIXELS: .* is not a whole number from 1 to 178"):
        image_size(encoded(Image.new("L", (6, 6)), "PNG"), "x")


def test_a_heic_photo_names_the_missing_package(monkeypatch) -> None:
    monkeypatch.setattr(images, "image_formats", lambda: ("PNG", "JPEG"))
    with pytest.raises(DataError, match=r"a HEIC photo, .* pip install '\.\[heic\]'"):
        decode(b"\0\0\0\x18ftypheic" + bytes(40), "x.heic")


def test_a_file_too_large_is_not_read(tmp_path, monkeypatch) -> None:
    (tmp_path / "x.png").write_bytes(b"0" * 100)
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 99)
    with pytest.raises(DataError, match="100 bytes"):
        read_image_bytes(tmp_path / "x.png")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
def test_a_mask_is_what_is_not_black(mode) -> None:
    mask = Image.new("L", (6, 4))
    mask.putpixel((5, 1), 255)
    values = decode_mask(encoded(mask.convert(mode), "PNG"), "x")
    assert values.shape == (4, 6)
    assert np.argwhere(values).tolist() == [[1, 5]]
