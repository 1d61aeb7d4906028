"""No test image of MVTec LOCO AD gets into a training file: not by name, not by content, not scaled or compressed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageOps

from lad_datasets.leakage.guard import Guard, is_test_image
from lad_datasets.leakage.perceptual_hash import look_of
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
    assert done.stderr.splitlines()[-1].startswith(f"error: {small_tree}/gear/test/dent/0.png: the picture")
    assert not (tmp_path / "x.parquet").exists()


def test_grpo_refuses_a_loco_tree_as_a_folder(lad, real_loco, tmp_path) -> None:
    done = lad("build", "grpo", "--folder", real_loco, "--recipe", "all", "--out", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert "this is MVTec LOCO AD, not an own folder" in done.stderr


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


@pytest.mark.parametrize(
    ("path", "leaks"),
    [
        ("/data/MVTec-LOCO/pushpins/good/000.png", True),
        ("/data/mvtec_loco_anomaly_detection/Screw Bag/a/000.png", True),
        ("/data/MVTec LOCO AD/juice-bottle/test/good/000.png", True),
        ("own/Breakfast_Box/test/good/000.png", True),
        ("own/splicing-connectors/TEST/bad/000.png", True),
        ("/data/mvtec_loco_ad/pushpins/train/good/000.png", False),
        ("/data/mvtec_loco_ad/pushpins/validation/good/000.png", False),
        ("/test/pushpins/train/good/000.png", False),
        ("own/screws/test/good/000.png", False),
        ("/data/location/gear/test/good/000.png", False),
        ("/d/\uff2d\uff36\uff34ec_loco/pushpins/good/0.png", True),
        ("/d/mvtec%5Floco/screw%20bag/good/0.png", True),
        ("/d/screw%20bag/t%65st/good/0.png", True),
        ("/d/screw_bag%2Ftest%2Fgood%2F0.png", True),
        ("/d/mvtec_loco_x/pushpins/good/0.png", True),
        ("/d/mvtec-loco2/pushpins/good/0.png", True),
        ("/d/loco_ad/pushpins/good/0.png", True),
        ("/d/loco_dataset/pushpins/good/0.png", True),
        ("/d/loco/pushpins/old/train/0.png", True),
        ("/d/train/loco/pushpins/good/0.png", True),
        ("/d/loco/pushpins/train/test/0.png", True),
        ("/d/test/screw_bag/good/0.png", True),
        ("/d/screw_bag_test/good/0.png", True),
        ("/d/loco/screw_bag_test/good/0.png", True),
        ("/d/test_screw_bag/good/0.png", True),
        ("/d/screw_bags/train/good/0.png", False),
        ("/d/screw_bags/test/good/0.png", False),
        ("/d/screw_bag/train/good/0.png", False),
        ("/d/locomotive/pushpins/good/0.png", False),
        ("/d/loco_x/gear/good/0.png", False),
        ("/d/screw_bag/test_good/0.png", True),
        ("/d/screw_bag/test-logical_anomalies/0.png", True),
        ("/d/screw_bag/logical/0.png", True),
        ("/d/screw_bag/logical_anomalies_1.png", True),
        ("/d/screw_bag/Test1/0.png", True),
        ("/d/screw_bag/test_images/0.png", True),
        ("/d/screw_bag/testdata/0.png", True),
        ("/d/screw_bag/test.zip/good/0.png", True),
        ("/d/screw_bag/eval/0.png", True),
        ("/d/test/good/screw_bag/0.png", True),
        ("/d/loco_test/pushpins/0.png", True),
        ("/d/breakfast_box_2/test/good/0.png", True),
        ("/d/loco_screw_bag/test/good/0.png", True),
        ("/d/mvtec_loco_pushpins/0.png", True),
        ("/d/screw_bag_test_good_000.png", True),
        ("/d/mvtec_loco_screw_bag_test_good_000.png", True),
        ("/d/screw%255Fbag/t%252565st/good/0.png", True),
        ("/d/\u0455crew_b\u0430g/t\u0435st/good/0.png", True),
        ("/d/mvtec_loco_pushpins/train/good/0.png", False),
        ("/d/screw_bag_2/train/good/0.png", False),
        ("/d/logical_anomaly_project/gear/train/good/0.png", False),
        ("/d/latest/screw_bag/train/good/0.png", False),
        ("/d/my_screw_bags/test/good/0.png", False),
        ("/d/test_bench/gear/test/good/0.png", False),
    ],
)
def test_by_any_spelling(path, leaks) -> None:
    assert is_test_image("folder", path) == leaks


@pytest.mark.parametrize("part", ["dataset", "data", "0", "v1", "mvtecloco", "test", "copy", "%25", "screw_bag"])
def test_a_hostile_path_is_read_in_no_time(part) -> None:
    assert is_test_image("folder", f"{part * 20_000}/x!") is False


@pytest.mark.parametrize("where", ["folder", "link", "sft", "check"])
def test_a_renamed_test_folder_gets_into_no_training_file(lad, tmp_path, draw_tiny, small_tree, *, where) -> None:
    hidden = tmp_path / "MVTec-LOCO" / "pushpins" / "test" / "good" / "0.png"
    draw_tiny(hidden)
    out = tmp_path / "out.parquet"
    if where in {"sft", "check"}:
        row = {
            "id": "1",
            "images": [str(hidden)],
            "question": "<image>?",
            "answer": "a",
            "dataset": "own",
            "category": "c",
        }
        (tmp_path / "annotations.jsonl").write_text(json.dumps(row))
        words = ["build", "sft", "--annotations", tmp_path, "--out", out]
        words = ["check", tmp_path / "annotations.jsonl"] if where == "check" else words
    else:
        target = small_tree / "gear/test/dent/9.png"
        if where == "link":
            target.symlink_to(hidden)
        else:
            draw_tiny(small_tree / "pushpins/train/good/0.png")
            draw_tiny(small_tree / "pushpins/test/dent/0.png")
        words = ["build", "grpo", "--folder", small_tree, "--out", out]
    done = lad(*words)
    assert done.exit_code == 1
    assert "MVTec LOCO AD" in done.stderr
    assert not out.exists()


def test_the_hash_is_the_one_of_imagehash(shared_data) -> None:
    import imagehash
    import numpy as np

    for path in sorted((shared_data / "real").rglob("*/train/good/*.png"))[:5]:
        expected = imagehash.phash(Image.open(path).convert("RGB"), hash_size=16).hash
        assert np.packbits(expected.ravel()).view(np.uint64).tolist() == look_of(path.read_bytes(), path).tolist()


@pytest.mark.slow
def test_turned_mirrored_padded_and_cropped_copies_are_found(guard, real_loco) -> None:
    """docs/datasets.md prints these figures."""
    random = Random(0)
    found, tried = Counter(), Counter()
    for path in sorted(real_loco.glob("*/test/*/*.png")):
        image = Image.open(path).convert("RGB")
        for kind, copy in iter_copies(image, random):
            out = BytesIO()
            copy.save(out, "JPEG", quality=90)
            tried[kind] += 1
            try:
                guard.check(out.getvalue(), "x")
            except DataError:
                found[kind] += 1
    print({kind: f"{found[kind]} of {count}" for kind, count in tried.items()})
    assert found["orientation"] == tried["orientation"]
    assert found["padding"] == tried["padding"]
    assert found["crop"] >= 0.95 * tried["crop"]


def iter_copies(image: Image.Image, random: Random) -> Iterator[tuple[str, Image.Image]]:
    for turn in list(Image.Transpose):
        yield "orientation", image.transpose(turn)
    for colour in ("black", "white", "gray"):
        yield "padding", ImageOps.expand(image, border=image.width // 10, fill=colour)
    for _ in range(10):
        left, top, right, low = (random.uniform(0, 0.05) for _ in range(4))
        width, height = image.size
        yield (
            "crop",
            image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - low) * height))),
        )
