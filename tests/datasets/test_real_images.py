"""Bad input made of real photographs, through `lad build`: refused, left out or put right, by name, and counted."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

QUERY = "transistor/test/bent_lead"
REFERENCE = "transistor/train/good"


@pytest.fixture
def real_tree(shared_data, tmp_path) -> Path:
    """Photographs of transistors, 6 references and 10 queries, to be spoilt."""
    return Path(shutil.copytree(shared_data / "real/mvtec_ad_reduced", tmp_path / "tree"))


@pytest.fixture
def photograph(real_tree) -> Path:
    """One of the queries."""
    return min((real_tree / QUERY).iterdir())


def grpo(lad, root: Path, out: Path, *words: object):
    return lad("build", "grpo", "--mvtec", root, "--recipe", "all", "--reference", "fixed", "--out", out, *words)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def as_jpeg(data: bytes) -> bytes:
    return encoded(Image.open(BytesIO(data)).convert("RGB"), "JPEG", quality=95)


def flipped(data: bytes) -> bytes:
    """Change one byte in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def bomb(data: bytes) -> bytes:
    """The photograph, with a header that claims 40,000 x 40,000 pixels."""
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


BROKEN = {
    "empty": (lambda _: b"", "a file of zero bytes"),
    "cut in half": (lambda data: data[: len(data) // 2], "a truncated PNG"),
    "without its end": (lambda data: data[:-12], "a truncated PNG"),
    "one byte wrong": (flipped, "a corrupt PNG"),
    "half a JPEG": (lambda data: as_jpeg(data)[: len(data) // 8], "a truncated JPEG"),
    "a JPEG without its end": (lambda data: as_jpeg(data)[:-2], "a truncated JPEG"),
    "half a WebP": (lambda data: encoded(Image.open(BytesIO(data)), "WEBP")[:2000], "image"),
    "a bomb": (bomb, "decompression bomb"),
    "no image": (lambda _: b"<html>404 Not Found</html>", "no known image format"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("max_pixels", [None, 20_000])
def test_a_broken_photograph_is_named_and_left_out_on_request(
    lad, real_tree, photograph, tmp_path, *, rows_of, name, max_pixels
) -> None:
    spoil, found = BROKEN[name]
    photograph.write_bytes(spoil(photograph.read_bytes()))
    out = tmp_path / "x.parquet"
    words = () if max_pixels is None else ("--max-pixels", max_pixels)
    refused = grpo(lad, real_tree, out, *words)
    assert refused.exit_code == 1
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("unreadable: ")]
    assert line.startswith(f"unreadable: {photograph}: ")
    assert found in line
    assert not out.exists()
    done = grpo(lad, real_tree, out, *words, "--skip-bad")
    assert done.exit_code == 0
    assert line in done.stderr.splitlines()
    assert f"left out: mvtec_ad/{QUERY}/{photograph.name}: its image cannot be used" in done.stderr.splitlines()
    assert done.stderr.splitlines()[-1].endswith("left out 1, unreadable 1")
    assert json.loads((tmp_path / "x.manifest.json").read_text())["findings"] == {
        "constant answer": 1,
        "left out": 1,
        "unreadable": 1,
    }
    assert len(rows_of(out)) == 9
    assert lad("check", out).exit_code == 0


def test_a_broken_reference_is_named_once_and_the_next_is_taken(lad, real_tree, tmp_path, rows_of) -> None:
    first, second = sorted((real_tree / REFERENCE).iterdir())[:2]
    first.write_bytes(first.read_bytes()[:5000])
    done = grpo(lad, real_tree, tmp_path / "x.parquet", "--skip-bad")
    assert done.exit_code == 0
    assert [line.rpartition(": ")[0] for line in done.stderr.splitlines() if line.startswith("unreadable")] == [
        f"unreadable: {first}"
    ]
    rows = rows_of(tmp_path / "x.parquet")
    assert {row["reference_path"] for row in rows} == {f"{REFERENCE}/{second.name}"}
    assert len(rows) == 10


def turned(image: Image.Image, kind: str) -> bytes:
    """As a camera stores it that was held on its side: the pixels turned, and a note how to turn them back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"quality": 95} if kind == "JPEG" else {}
    return encoded(image.transpose(Image.Transpose.ROTATE_90), kind, exif=exif, **options)


def sixteen_bits(image: Image.Image) -> bytes:
    return encoded(Image.fromarray(np.asarray(image.convert("L"), dtype=np.uint16) * 257), "PNG")


def with_alpha(image: Image.Image) -> bytes:
    """The background's pixels hold garbage that nobody ever sees."""
    pixels = np.dstack([np.asarray(image), np.full(image.size[::-1], 255, dtype=np.uint8)])
    pixels[:40, :40] = (255, 0, 255, 0)
    return encoded(Image.fromarray(pixels), "PNG")


#: What is made of the photograph, how it is told, and how far a grey value may be from the photograph's on average.
MISLEADING = {
    "a rotated JPEG": (lambda image: turned(image, "JPEG"), "EXIF rotation", 2),
    "a rotated PNG": (lambda image: turned(image, "PNG"), "EXIF rotation", 0),
    "16 bits": (sixteen_bits, "more than 8 bits a channel", 0),
    "alpha": (with_alpha, "alpha channel", 0),
    "CMYK": (lambda image: encoded(image.convert("CMYK"), "JPEG", quality=95), "CMYK colours", 2),
}


@pytest.mark.parametrize("name", MISLEADING)
def test_a_misleading_photograph_is_put_right_and_named(
    lad, real_tree, photograph, tmp_path, *, rows_of, name
) -> None:
    make, told, tolerance = MISLEADING[name]
    before = Image.open(photograph).convert("RGB")
    photograph.write_bytes(make(before))
    done = grpo(lad, real_tree, tmp_path / "x.parquet")
    assert done.exit_code == 0
    assert f"repaired: {photograph}: {told}" in done.stderr.splitlines()
    assert done.stderr.splitlines()[-1].endswith("repaired 1")
    row = next(row for row in rows_of(tmp_path / "x.parquet") if row["query_path"] == f"{QUERY}/{photograph.name}")
    as_trainers_do = np.asarray(Image.open(BytesIO(row["images"][1]["bytes"])).convert("RGB"))
    seen, meant = (np.asarray(image.convert("L"), dtype=float) for image in (Image.fromarray(as_trainers_do), before))
    if name == "alpha":
        assert (seen[:40, :40] == 255).all()
        seen[:40, :40] = meant[:40, :40]
    assert np.abs(seen - meant).mean() <= tolerance
    assert lad("check", tmp_path / "x.parquet").exit_code == 0
    refused = grpo(lad, real_tree, tmp_path / "y.parquet", "--images", "path")
    assert refused.exit_code == 1
    assert f"{photograph}: trainers would misread it ({told})" in refused.stderr


def test_duplicates_and_contradictions_among_photographs(lad, real_tree, photograph, tmp_path, rows_of) -> None:
    shutil.copy(photograph, photograph.with_name("copy.png"))
    shutil.copy(photograph, real_tree / "transistor/test/good/liar.png")
    first = min((real_tree / REFERENCE).iterdir())
    shutil.copy(min((real_tree / "transistor/test/misplaced").iterdir()), first)
    done = grpo(lad, real_tree, tmp_path / "x.parquet")
    assert done.exit_code == 0
    lines = done.stderr.splitlines()
    query = f"mvtec_ad/{QUERY}/{photograph.name}"
    assert f"duplicate: mvtec_ad/{QUERY}/copy.png is the same image as {query}" in lines
    assert f"conflicting label: mvtec_ad/transistor/test/good/liar.png is no, the same image {query} is yes" in lines
    assert any(
        line.startswith(f"conflicting label: the reference mvtec_ad/{REFERENCE}/{first.name} is") for line in lines
    )
    assert any(line.startswith("identical reference: mvtec_ad/transistor/test/misplaced/") for line in lines)
    assert lines[-1].endswith("conflicting label 2, constant answer 1, duplicate 1, identical reference 1")
    assert len(rows_of(tmp_path / "x.parquet")) == 12  # kept: only the owner knows which label is right


@pytest.mark.parametrize("saved", ["copied", "saved anew"])
def test_the_nearest_photograph_is_not_the_query_itself(
    lad, real_tree, photograph, tmp_path, *, rows_of, saved
) -> None:
    twin = real_tree / REFERENCE / "twin.png"
    shutil.copy(photograph, twin)
    if saved == "saved anew":
        Image.open(photograph).save(twin, compress_level=1)
        assert twin.read_bytes() != photograph.read_bytes()
    done = lad(
        *("build", "grpo", "--mvtec", real_tree, "--recipe", "all", "--reference", "nearest"),
        *("--out", tmp_path / "x.parquet"),
    )
    assert done.exit_code == 0
    how = "the same file" if saved == "copied" else "the same picture in another file"
    name = f"mvtec_ad/{QUERY}/{photograph.name}"
    assert f"identical reference: {name}: skipped {REFERENCE}/twin.png, {how}" in done.stderr.splitlines()
    row = next(row for row in rows_of(tmp_path / "x.parquet") if row["pair_id"] == name)
    assert row["reference_path"] != f"{REFERENCE}/twin.png"


def test_photographs_of_every_dataset_pass_byte_for_byte(lad, shared_data, tmp_path, rows_of) -> None:
    real = shared_data / "real"
    roots = ("--mvtec", real / "mvtec_ad", "--visa", real / "visa")
    done = lad("build", "grpo", *roots, "--recipe", "all", "--out", tmp_path / "x.parquet")
    assert done.exit_code == 0
    assert "repaired" not in done.stderr
    for row in rows_of(tmp_path / "x.parquet"):
        root = real / ("visa" if row["dataset"] == "visa" else "mvtec_ad")
        names = (*row["reference_path"].split("\n"), row["query_path"])
        assert [image["bytes"] for image in row["images"]] == [(root / name).read_bytes() for name in names]
