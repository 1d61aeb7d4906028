"""Boxes: reading, overlap, frames against the installed processor, and the reward."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_reasoner.pairs.frames import Frame
from lad_reasoner.pairs.masks import mask_boxes
from lad_reasoner.pairs.tokens import TrainerPixels
from lad_reasoner.task.boxes import MOST_BOXES, box_reward, iou, match_boxes, read_boxes, scale_boxes
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.response import parse
from lad_reasoner.training.reward_keys import score_response


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<box>[1, 2, 3, 4]</box>", [(1, 2, 3, 4)]),
        ("<box> 1,2 , 3.5,-4 </box>", [(1, 2, 3.5, -4)]),
        ("<box>(1, 2, 3, 4)</box> and <box>[5, 6, 7, 8]</box>", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("<box>[1, 2, 3]</box>", []),
        ("<box>[1, 2, 3, 4, 5]</box>", []),
        ("[1, 2, 3, 4]", []),
        ("<box>[1, 2, 3, nan]</box>", []),
        ("<box>[1, 2, 3, 4]", []),
    ],
)
def test_a_box_is_four_numbers_between_its_tags(text, expected) -> None:
    assert list(read_boxes(text)) == expected


@given(st.text())
def test_every_text_is_read(text) -> None:
    read_boxes(f"<box>{text}</box>")


def test_boxes_in_the_reasoning_leave_form_and_answer_as_they_are() -> None:
    said = parse("<think> a pin is gone <box>[1, 2, 3, 4]</box> </think><answer> yes </answer>")
    assert (said.answer, said.well_formed) == ("yes", True)


def random_boxes(rng: np.random.Generator, count: int) -> list[tuple[int, int, int, int]]:
    corners = rng.integers(0, 40, (count, 2, 2))
    low, high = corners.min(axis=1), corners.max(axis=1) + 1
    return [(int(a), int(b), int(c), int(d)) for (a, b), (c, d) in zip(low, high, strict=True)]


def test_iou_counts_pixels() -> None:
    rng = np.random.default_rng(0)
    for first, second in zip(random_boxes(rng, 200), random_boxes(rng, 200), strict=True):
        areas = []
        for left, top, right, bottom in (first, second):
            area = np.zeros((41, 41), dtype=bool)
            area[top:bottom, left:right] = True
            areas.append(area)
        assert iou(first, second) == pytest.approx((areas[0] & areas[1]).sum() / (areas[0] | areas[1]).sum())


def test_a_match_is_at_most_the_best_assignment_and_the_whole_for_equal_boxes() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        stated, gold = (random_boxes(rng, int(rng.integers(1, 4))) for _ in range(2))
        few, many = sorted((stated, gold), key=len)
        best = max(sum(map(iou, few, chosen)) for chosen in permutations(many, len(few))) / len(many)
        found = match_boxes(stated, gold)
        assert best / 2 <= found <= best + 1e-12
        assert match_boxes(gold, list(reversed(gold))) == pytest.approx(1.0)
    assert match_boxes([], gold) == match_boxes(gold, []) == 0.0
    assert match_boxes(gold * (MOST_BOXES + 1), gold) == 0.0
    assert (box_reward([], ()), box_reward([(0, 0, 1, 1)], ())) == (1.0, 0.0)


def test_regions_become_boxes_and_specks_are_left_out() -> None:
    area = np.zeros((200, 400), dtype=bool)
    area[20:60, 40:80] = True
    area[100:180, 200:300] = True
    area[0, 0] = True
    assert mask_boxes(area) == ((0.5, 0.5, 0.75, 0.9), (0.1, 0.1, 0.2, 0.3))


@pytest.mark.frameworks
@pytest.mark.parametrize("trainer", [None, TrainerPixels(3136, 100_352)])
def test_the_frame_is_the_image_that_the_installed_processor_makes(trainer) -> None:
    pytest.importorskip("torchvision")
    from PIL import Image
    from transformers import Qwen2VLImageProcessor

    rng = np.random.default_rng(2)
    bounds = {"min_pixels": 3136, "max_pixels": 50_176} if trainer is None else {}
    frame = Frame(trainer=trainer) if bounds == {} else Frame.of_model("Qwen/Qwen2.5-VL-3B-Instruct", **bounds)
    processor = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_845_056)
    for width, height in rng.integers(40, 900, (12, 2)).tolist():
        image = Image.new("RGB", (width, height))
        if trainer is not None:  # EasyR1 and its adapter scale first
            from lad_reasoner.pairs.tokens import fit_trainer

            image = image.resize(fit_trainer(width, height, trainer))
        _, rows, columns = processor(images=[image], return_tensors="pt", **bounds)["image_grid_thw"][0].tolist()
        assert frame.size(width, height) == (14 * columns, 14 * rows)
        truth = (0.25, 0.5, 0.75, 1.0)
        said = tuple(share * side for share, side in zip(truth, (14 * columns, 14 * rows) * 2, strict=True))
        assert scale_boxes([said], frame.size(width, height))[0] == pytest.approx(truth)


def test_families_state_boxes_in_their_own_frame() -> None:
    assert Frame.of_model("Qwen/Qwen3-VL-4B-Instruct").size(640, 480) == (1000, 1000)
    assert Frame.of_model("Qwen/Qwen2-VL-2B-Instruct").size(640, 480) == (1000, 1000)
    assert Frame.of_model("models/own").size(640, 480) == (644, 476)


GOLD = json.dumps({"label": "yes", "category": "c", "boxes": [[0.5, 0.5, 1, 1]], "size": [560, 280]})
NORMAL = json.dumps({"label": "no", "category": "c", "boxes": [], "size": [560, 280]})


@pytest.mark.parametrize(
    ("gold", "box", "answer", "options", "expected"),
    [
        (GOLD, "[280, 140, 560, 280]", "yes", {}, 1.0),
        (GOLD, "[420, 140, 560, 280]", "yes", {}, 0.5),
        (GOLD, "[280, 140, 560, 280]", "no", {}, 0.0),
        (GOLD, "[500, 500, 1000, 1000]", "yes", {"box_scale": 1000}, 1.0),
        (GOLD, "[140, 70, 280, 140]", "yes", {"box_smallest": 3136, "box_largest": 39_200}, 1.0),
        (GOLD, None, "yes", {}, 0.0),
        (NORMAL, None, "no", {}, 1.0),
        (NORMAL, "[0, 0, 28, 28]", "no", {}, 0.0),
    ],
)
def test_the_reward_reads_boxes_in_the_frame_of_the_options(gold, box, answer, options, expected) -> None:
    text = f"<think> compared {f'<box>{box}</box>' if box else ''} </think><answer> {answer} </answer>"
    scores = score_response(text, gold, box_weight=0.5, **options)
    assert scores["box"] == scores["box_c"] == pytest.approx(expected)
    assert scores["overall"] == pytest.approx(scores["structure"] / 2 + scores["accuracy"] / 2 + expected / 2)


@pytest.mark.parametrize(
    "boxes", [[[0, 0, 2, 1]], [[0, 0, 1]], "all", [[0, 0, 1, "x"]], {"a": 1}, [[0, 0, 1, None]]], ids=repr
)
def test_crooked_boxes_are_no_gold_answer(boxes) -> None:
    with pytest.raises(ValueError, match="boxes must hold shares"):
        read_gold({"label": "yes", "boxes": boxes, "size": [10, 10]})
    with pytest.raises(ValueError, match="boxes must hold shares"):
        read_gold({"label": "yes", "boxes": [[0, 0, 1, 1]]})


@pytest.mark.parametrize("text", ["<box>{}</box>", "<box>[1{}x", "<box>[1,{}", "<box>[1,2,3,4{}"])
def test_endless_white_space_is_read_in_linear_time(text: str) -> None:
    """Quadratic work on these would be many minutes: the test would not end."""
    assert read_boxes(text.format(" \n" * 1_000_000)) == ()


def test_only_ascii_digits_are_numbers() -> None:
    assert read_boxes("<box>[\u0661, 2, 3, 4]</box>") == ()
