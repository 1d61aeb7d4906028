"""No test image of MVTec LOCO AD gets into a training file: not by name, not by content, not scaled or compressed."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from lad_datasets.leakage.guard import Guard, is_test_image
from lad_reasoner.support.errors import DataError


@pytest.fixture(scope="module")
def real_loco(shared_data) -> Path:
    return shared_data / "real" / "mvtec_loco_ad"


@pytest.fixture(scope="module")
def guard(real_loco) -> Guard:
    return Guard(real_loco, workers=2)


@pytest.mark.parametrize(
    ("dataset", "path", "leaks"),
    [
        ("mvtec_loco", "screw_bag/test/good/000.png", True),
        ("synthetic_loco", "screw_bag/test/logical_anomalies/000.png", True),
        ("folder", "data/MVTec-LOCO/screw_bag/test/structural_anomalies/000.png", True),
        ("folder", "C:\\loco\\test\\logical_anomalies\\000.png", True),
        ("mvtec_loco", "screw_bag/train/good/000.png", False),
        ("mvtec_ad", "screw/test/good/000.png", False),
    ],
)
def test_by_name(dataset, path, leaks) -> None:
    assert is_test_image(dataset, path) == leaks


@pytest.mark.slow
def test_by_content_and_by_look(guard, real_loco) -> None:
    for path in sorted(real_loco.glob("*/test/*/*.png")):
        data = path.read_bytes()
        with pytest.raises(DataError, match="the same file as the MVTec LOCO AD test image"):
            guard.check(data, "x")
        for kind, quality, pixels in (("PNG", 0, 100_000), ("JPEG", 60, 300_000), ("WEBP", 60, 100_000)):
            image = Image.open(BytesIO(data)).convert("RGB")
            scale = (pixels / (image.width * image.height)) ** 0.5
            out = BytesIO()
            image.resize((int(image.width * scale), int(image.height * scale))).save(out, kind, quality=quality)
            with pytest.raises(DataError, match=r"the picture .* of the MVTec LOCO AD test image"):
                guard.check(out.getvalue(), "x")


@pytest.mark.slow
def test_other_pictures_pass(guard, shared_data) -> None:
    """Also the training images of the same categories, which look much like the test images."""
    others = [
        path
        for path in (shared_data / "real").rglob("*")
        if path.suffix in {".png", ".JPG"} and "ground_truth" not in path.parts
        if "mvtec_loco_ad" not in path.parts or "train" in path.parts
    ]
    assert len(others) > 30
    for path in others:
        guard.check(path.read_bytes(), path)


def test_grpo_refuses_them(lad, small_tree, real_loco, tmp_path) -> None:
    source = next(real_loco.glob("juice_bottle/test/good/*.png"))
    Image.open(source).resize((400, 800)).save(small_tree / "gear/test/dent/0.png")
    words = ("build", "grpo", "--folder", small_tree, "--recipe", "all", "--skip-bad", "--out", tmp_path / "x.parquet")
    done = lad(*words, "--loco", real_loco)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {small_tree}/gear/test/dent/0.png: found the picture")
    assert not (tmp_path / "x.parquet").exists()


def test_grpo_refuses_a_loco_tree_as_a_folder(lad, real_loco, tmp_path) -> None:
    done = lad("build", "grpo", "--folder", real_loco, "--recipe", "all", "--out", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert "found the test image" in done.stderr


@pytest.mark.parametrize("disguise", ["named", "renamed"])
def test_sft_refuses_them(lad, real_loco, tmp_path, disguise) -> None:
    source = next(real_loco.glob("juice_bottle/test/logical_anomalies/*.png"))
    name = "juice_bottle/test/logical_anomalies/000.png" if disguise == "named" else "holiday.png"
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, tmp_path / name)
    row = {"id": "1", "images": [name], "question": "<image>?", "answer": "a", "dataset": "own", "category": "c"}
    (tmp_path / "annotations.jsonl").write_text(json.dumps(row))
    done = lad("build", "sft", "--annotations", tmp_path, "--out", tmp_path / "sft", "--loco", real_loco)
    assert done.exit_code == 1
    assert "test image" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "sft").exists()


def test_a_guard_needs_test_images(tmp_path) -> None:
    with pytest.raises(DataError, match="no test images"):
        Guard(tmp_path)
