"""Masks of photos that EXIF rotates: the area lies where the defect is in the upright picture, or is not used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lad_datasets.annotate.subjects import Subject
from lad_datasets.annotate.template_writer import describe_mask
from lad_datasets.builders.grpo import build_grpo
from lad_datasets.builders.options import Options
from lad_reasoner.pairs.masks import mask_boxes, query_area, read_area
from lad_reasoner.pairs.reader import iter_pairs
from lad_reasoner.report.pictures import FolderStore, draw_pictures
from lad_reasoner.support.errors import DataError

WIDTH, HEIGHT = 60, 40
SPOT = (slice(2, 8), slice(30, 50))  # rows and columns, as stored


def rotated(
    root: Path, orientation: int, *, kind: str = "jpg", upright_mask: bool = False, side: int = HEIGHT
) -> Path:
    """Write a tree whose one anomalous photo is black with a white spot, its mask, and return the photo."""
    stored, mask = np.zeros((side, WIDTH, 3), dtype=np.uint8), np.zeros((side, WIDTH), dtype=np.uint8)
    stored[SPOT] = mask[SPOT] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = root / f"part/test/dent/0.{kind}"
    for name, pixels in {"train/good/0": 90, "train/good/1": 120, "test/good/0": 150}.items():
        path = root / f"part/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, side), (pixels,) * 3).save(path)
    photo.parent.mkdir(parents=True)
    Image.fromarray(stored).save(photo, exif=exif)
    drawn = Image.fromarray(mask)
    if upright_mask:
        drawn.getexif()[0x0112] = orientation
        drawn = ImageOps.exif_transpose(drawn)
    (root / "part/ground_truth/dent").mkdir(parents=True)
    drawn.save(root / "part/ground_truth/dent/0_mask.png")
    return photo


def seen(photo: Path) -> np.ndarray:
    """Return where the spot is in the picture that people and models see."""
    return np.asarray(ImageOps.exif_transpose(Image.open(photo)).convert("L")) > 127


@pytest.mark.parametrize("upright_mask", [False, True])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
def test_the_area_is_that_of_the_upright_picture(
    tmp_path: Path, orientation: int, kind: str, *, upright_mask: bool
) -> None:
    photo = rotated(tmp_path, orientation, kind=kind, upright_mask=upright_mask)
    area = query_area(tmp_path, "part/test/dent/0." + kind)
    assert area is not None
    assert area.shape == seen(photo).shape
    assert (area == seen(photo)).mean() > 0.98  # JPEG and WebP blur the spot's edge


@pytest.mark.parametrize("orientation", [6, 8])
def test_builder_sentence_and_overlay_agree_with_the_pixels(tmp_path: Path, orientation: int) -> None:
    photo = rotated(tmp_path / "own", orientation)
    data = tmp_path / "pairs.parquet"
    build_grpo({"folder": tmp_path / "own"}, data, Options(masks=tmp_path / "own"), recipe="all")
    pair = next(pair for pair in iter_pairs(data) if pair.truth.gold.label == "yes")
    gold = pair.truth.gold
    (expected,) = mask_boxes(seen(photo))
    assert gold.boxes is not None
    assert np.allclose(gold.boxes[0], expected, atol=0.05)
    assert gold.size == (HEIGHT, WIDTH)
    mask = tmp_path / "own/part/ground_truth/dent/0_mask.png"
    subject = Subject("own/0", "folder", "part", "own", "dent", photo, mask)
    side = "right" if orientation == 6 else "left"  # the top of the sensor
    assert f"{side} of the image" in describe_mask(subject)
    drawn = draw_pictures(
        data,
        {pair.pair_id},
        FolderStore(tmp_path / "shown"),
        edge=100,
        image_root=tmp_path,
        masks=tmp_path / "own",
    )
    shown = Image.open(next((tmp_path / "shown").rglob(drawn[pair.pair_id].mask or "")))
    assert shown.size == (HEIGHT, WIDTH)


@pytest.mark.parametrize(("orientation", "side"), [(2, HEIGHT), (3, HEIGHT), (4, HEIGHT), (6, WIDTH)])
def test_a_rotation_that_keeps_the_shape_leaves_the_query_out(
    tmp_path: Path, orientation: int, side: int, caplog
) -> None:
    photo = rotated(tmp_path / "own", orientation, side=side)
    mask = tmp_path / "own/part/ground_truth/dent/0_mask.png"
    assert read_area([mask], photo) is None
    options = Options(masks=tmp_path / "own")
    build_grpo({"folder": tmp_path / "own"}, tmp_path / "pairs.parquet", options, recipe="all")
    assert [pair.truth.gold.label for pair in iter_pairs(tmp_path / "pairs.parquet")] == ["no"]
    assert "whose mask may be rotated or not. Save the photo upright" in caplog.text


def test_without_its_photo_a_mask_is_taken_as_it_is(tmp_path: Path) -> None:
    photo = rotated(tmp_path, 6)
    photo.unlink()
    area = read_area([tmp_path / "part/ground_truth/dent/0_mask.png"], photo)
    assert area is not None
    assert area.shape == (HEIGHT, WIDTH)


def test_an_anomalous_query_with_a_blank_mask_is_left_out(tmp_path: Path, caplog) -> None:
    """Without a box it would count as normal: the reward would pay for stating none."""
    rotated(tmp_path / "own", 1)
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "own/part/ground_truth/dent/0_mask.png")
    build_grpo({"folder": tmp_path / "own"}, tmp_path / "pairs.parquet", Options(masks=tmp_path / "own"), recipe="all")
    assert [pair.truth.gold.label for pair in iter_pairs(tmp_path / "pairs.parquet")] == ["no"]
    assert "dent/0.jpg: its mask marks nothing" in caplog.text


def test_a_corrupt_mask_ends_the_build_with_its_name_or_is_skipped(tmp_path: Path) -> None:
    rotated(tmp_path / "own", 1)
    (tmp_path / "own/part/ground_truth/dent/0_mask.png").write_bytes(b"no image")
    options, data = Options(masks=tmp_path / "own"), tmp_path / "pairs.parquet"
    with pytest.raises(DataError, match=r"0_mask\.png|unreadable"):
        build_grpo({"folder": tmp_path / "own"}, data, options, recipe="all")
    build_grpo({"folder": tmp_path / "own"}, data, replace(options, skip_bad=True), recipe="all")
    assert [pair.truth.gold.label for pair in iter_pairs(data)] == ["no"]
