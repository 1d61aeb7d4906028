"""Box figures, recomputed pixel by pixel on random masks, from the builder to the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pair_files import make_run_key

from lad_reasoner.commands.lad import main
from lad_reasoner.inference.predict import default_template
from lad_reasoner.inference.predictions import Prediction, PredictionStore
from lad_reasoner.pairs.reader import data_sha256, read_truths

#: Multiples of 28, so that the model sees the stored pixels.
WIDTH, HEIGHT = 168, 112


def run(*words: object) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path, dict[str, np.ndarray], dict[str, tuple[int, ...] | None]]:
    """A tree with one marked rectangle per anomaly, its parquet, and random boxes as predictions."""
    folder, rng = tmp_path_factory.mktemp("boxes"), np.random.default_rng(3)
    root = folder / "own"
    areas: dict[str, np.ndarray] = {}
    for split, count in (("train/good", 3), ("test/good", 12), ("test/dent", 24)):
        for number in range(count):
            path = root / "gear" / split / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
            if split == "test/dent" and number:  # the first has no mask
                left, top = int(rng.integers(0, WIDTH - 60)), int(rng.integers(0, HEIGHT - 50))
                area = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
                area[top : top + int(rng.integers(20, 50)), left : left + int(rng.integers(20, 60))] = 255
                areas[f"gear/test/dent/{number:03d}.png"] = area > 0
                mask = root / "gear" / "ground_truth" / "dent" / f"{number:03d}_mask.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(area).save(mask)
    data, out = folder / "boxes.parquet", folder / "model.jsonl"
    run("build", "grpo", "--folder", root, "--boxes", root, "--out", data)
    said: dict[str, tuple[int, ...] | None] = {}
    key = make_run_key(data_sha256(data), model="Qwen2.5-VL-3B")
    with PredictionStore(out, key) as store:
        for truth in read_truths(data):
            box = None
            if rng.random() < 0.8:
                if truth.query_path in areas and rng.random() < 0.7:
                    rows, columns = np.nonzero(areas[truth.query_path])
                    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                    box = tuple(int(side) for side in np.array(box) + rng.integers(-6, 7, 4))
                else:
                    box = (*map(int, rng.integers(0, 60, 2)), *map(int, rng.integers(70, 110, 2)))
            said[truth.pair_id] = box
            words = f"A part is missing. <box>{list(box)}</box>" if box else "All parts match."
            text = f"<think> {words} </think><answer> {'yes' if box else 'no'} </answer>"
            store.append(Prediction(**dict(key), pair_id=truth.pair_id, response=text))
    return data, out, areas, said


def pixels(box: tuple[int, ...]) -> np.ndarray:
    """Return the area of a box on a canvas with a margin."""
    canvas = np.zeros((HEIGHT + 20, WIDTH + 20), dtype=bool)
    left, top, right, bottom = (side + 10 for side in box)
    canvas[top:bottom, left:right] = True
    return canvas


def test_every_figure_is_that_of_counted_pixels(made, capsys) -> None:
    data, out, areas, said = made
    root = data.parent / "own"
    run("score", out, "--data", data, "--protocol", "all", "--masks", root, "--resamples", 200, "--json")
    (found,) = json.loads(capsys.readouterr().out)["boxes"]
    overlaps, inside, boxed = [], [], []
    for truth in read_truths(data):
        box = said[truth.pair_id]
        if truth.label == "no":
            boxed.append(box is not None)
            continue
        area = np.pad(areas[truth.query_path], 10)
        mine = pixels(box) if box else np.zeros_like(area)
        overlaps.append((area & mine).sum() / (area | mine).sum())
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) if box else None
        inside.append(centre is not None and bool(area[int(centre[1]) + 10, int(centre[0]) + 10]))
    values = {name: figure["value"] for name, figure in found["figures"].items()}
    assert found["replies"] == 23
    assert values["mean_iou"] == pytest.approx(np.mean(overlaps), abs=1e-3)  # gold boxes have four digits
    assert values["hit_rate"] == pytest.approx(np.mean(np.array(overlaps) >= 0.5))
    assert values["point_in_mask"] == pytest.approx(np.mean(inside))
    assert values["boxed_normal"] == pytest.approx(np.mean(boxed))
    assert 0 < values["hit_rate"] < 1
    assert found["figures"]["mean_iou"]["low"] < values["mean_iou"] < found["figures"]["mean_iou"]["high"]


def test_a_query_without_a_mask_is_left_out_and_the_prompt_asks_for_boxes(made) -> None:
    data, _, areas, _ = made
    truths = read_truths(data)
    anomalous = {truth.query_path for truth in truths if truth.label == "yes"}
    assert anomalous == set(areas)
    assert "<box>[x1, y1, x2, y2]</box>" in default_template(truths, structured=True)
    assert {truth.gold.size for truth in truths} == {(WIDTH, HEIGHT)}
    run("check", data)


def test_the_report_has_the_boxes_of_data_and_model(made, tmp_path) -> None:
    data, out, _, said = made
    root = data.parent / "own"
    words = ("--data", data, "--protocol", "all", "--masks", root, "--resamples", 20)
    run("report", out, *words, "--out", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert 'id="boxes"' in page and "point in the mask" in page
    text = (tmp_path / "report" / "data.js").read_text()
    gallery = json.loads(text.removeprefix("globalThis.ladReport = ").rstrip(";\n"))
    for pair in gallery["pairs"]:
        (boxes,) = [sample["boxes"] for sample in pair["said"][0]["samples"]]
        box = said[pair["id"]]
        expected = [[box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT]] if box else []
        assert np.allclose(boxes, expected, atol=1e-4) if box else boxes == []
        assert bool(pair["boxes"]) == (pair["label"] == "yes")
