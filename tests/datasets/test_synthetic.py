"""Synthetic trees: seeded, in the real layouts, with anomalies that are where and what they are said to be."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lad_datasets.sources import mvtec_ad, mvtec_loco, visa
from lad_reasoner.support.files import locked
from lad_reasoner.task.response import parse
from lad_reasoner.task.rewards import rlad_reward
from lad_reasoner.task.task import KINDS, LOCO_CATEGORIES, problem_text, prompt_text
from lad_rehearsal.synthetic.annotations import ANNOTATIONS, draw_samples
from lad_rehearsal.synthetic.qa import damage_answer, label_of, pair_answer, parts_answer
from lad_rehearsal.synthetic.render import render
from lad_rehearsal.synthetic.scenes import (
    DEFECT_KINDS,
    EMPTY,
    LOGICAL,
    SLOTS,
    STRUCTURAL,
    Scene,
    break_scene,
    compare,
    draw_dense,
    draw_layout,
    draw_layouts,
)
from lad_rehearsal.synthetic.trees import GENERATOR, MARKER, Sizes, draw_categories, draw_trees

SIZES = Sizes(train=2, test=16, loco_test=12, sft=40)
DEFECTS = (*LOGICAL, *STRUCTURAL)

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=30, deadline=None)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    draw_trees(out, seed=3, sizes=SIZES)
    return out


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- scenes ---------------------------------------------------------------------------------------------------------


@few
@given(seeds, st.sampled_from(DEFECTS))
def test_a_defect_shows_in_the_comparison_and_normal_does_not(seed: int, defect: str) -> None:
    rng = np.random.default_rng(seed)
    normal = Scene(draw_layout(rng))
    states = compare(normal, break_scene(normal, defect, rng))
    assert label_of(states) == "yes"
    assert label_of(compare(normal, normal)) == "no"
    wrong = {state for state in states if state != "ok"}
    expected = {
        "missing_part": {"missing"},
        "extra_part": {"extra"},
        "recoloured_part": {"recoloured"},
        "wrong_place": {"missing", "extra"},
        "scratch": {"scratch"},
        "dent": {"dent"},
    }
    if defect in expected:
        assert wrong == expected[defect]
    elif defect == "swapped_parts":
        assert wrong <= {"swapped", "recoloured"}
        assert sum(state != "ok" for state in states) == 2
    else:
        assert {states.count("missing"), states.count("extra")} == {2, 0}


@few
@given(seeds)
def test_swapping_keeps_the_parts_and_moves_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    normal = Scene(draw_layout(rng))
    assert Counter(break_scene(normal, "swapped_parts", rng).parts) == Counter(normal.parts)
    assert Counter(break_scene(normal, "wrong_place", rng).parts) == Counter(normal.parts)


@few
@given(seeds)
def test_every_slot_can_be_told(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = Scene(draw_layout(rng))
    query = draw_dense(reference, rng)
    answer = pair_answer(reference, query)
    assert parse(answer).well_formed
    states = compare(reference, query)
    assert parse(answer).reasoning.count(":") == sum(state != "ok" for state in states)
    assert (parse(answer).reasoning == "Everything matches.") == all(state == "ok" for state in states)
    assert damage_answer(query).count(":") == 1 + sum(mark > 0 for mark in query.blemishes)
    assert parts_answer(query).count(":") == 1 + sum(part != EMPTY for part in query.parts)


def test_a_layout_has_room_for_every_defect() -> None:
    for layout in draw_layouts(200, rng=np.random.default_rng(0)):
        assert 4 <= sum(part != EMPTY for part in layout) <= 7


def test_every_defect_has_a_kind() -> None:
    assert set(DEFECT_KINDS) == set(DEFECTS)
    assert set(DEFECT_KINDS.values()) <= set(KINDS)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_and_jitter_otherwise() -> None:
    scenes = [Scene(layout) for layout in draw_layouts(5, rng=np.random.default_rng(1))]
    first, again, other = (render(scenes, rng=np.random.default_rng(seed)).images for seed in (7, 7, 8))
    assert first.dtype == np.uint8
    assert first.shape == (5, 84, 84, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [42, 84, 252])
def test_parts_are_drawn_where_the_layout_says(size: int) -> None:
    layout = (0, EMPTY, 8, EMPTY, 16, EMPTY, 29, EMPTY, 3)
    image = render([Scene(layout)], rng=np.random.default_rng(0), size=size).images[0].astype(float)
    cell = size // 3
    for slot, part in enumerate(layout):
        row, column = divmod(slot, 3)
        inside = image[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell][cell // 7 : -cell // 7]
        spread = np.ptp(inside[:, cell // 7 : -cell // 7], axis=-1).max()  # coloured parts, grey background
        assert (spread > 70) == (part != EMPTY), (slot, part, spread)


@pytest.mark.parametrize("name", STRUCTURAL)
def test_a_blemish_is_marked_where_it_is(name: str) -> None:
    scene = break_scene(Scene((EMPTY,) * SLOTS), name, np.random.default_rng(5))
    drawn = render([scene], rng=np.random.default_rng(0))
    marked = drawn.marks[0] > 0
    (slot,) = np.flatnonzero(scene.blemishes)
    rows, columns = np.nonzero(marked)
    assert set(3 * (rows // 28) + columns // 28) == {slot}
    assert 10 < marked.sum() < 200
    assert drawn.images[0][marked].mean() < drawn.images[0][~marked].mean() - 40


# --- trees ----------------------------------------------------------------------------------------------------------


def test_readers_find_what_was_asked_for(trees: Path) -> None:
    for source, dataset, categories in (
        (mvtec_ad, "synthetic_mvtec_ad", mvtec_ad.CATEGORIES),
        (visa, "synthetic_visa", visa.CATEGORIES),
    ):
        tree = source.scan(trees / source.__name__.rsplit(".", 1)[-1])
        assert tree.dataset == dataset
        assert set(tree.categories) == set(categories)
        assert not tree.notes
        for category in categories:
            queries = [sample for sample in tree.queries() if sample.category == category]
            assert len(tree.references(category)) == SIZES.train
            assert Counter(sample.label for sample in queries) == {"no": 8, "yes": 8}
            assert {sample.defect.replace(" ", "_") for sample in queries} == {"good", *DEFECTS}


def test_the_loco_tree_has_masks_that_name_the_defects(trees: Path) -> None:
    tree = mvtec_loco.scan(trees / "mvtec_loco")
    assert tree.dataset == "synthetic_loco"
    assert set(tree.categories) == set(LOCO_CATEGORIES)
    assert Counter(sample.kind for sample in tree.queries()) == {"good": 30, "logical": 30, "structural": 15}
    assert {sample.defect for sample in tree.queries() if sample.kind == "logical"} == set(LOGICAL)
    assert {sample.defect for sample in tree.queries() if sample.kind == "structural"} == set(STRUCTURAL)
    for category in tree.categories:
        folder = trees / "mvtec_loco" / category
        assert len(list((folder / "validation" / "good").glob("*.png"))) == 1
        values = [entry["pixel_value"] for entry in json.loads((folder / "defects_config.json").read_text())]
        assert len(set(values)) == len(DEFECTS)
        assert all(234 <= value <= 255 for value in values)


def test_several_wrong_slots_have_several_masks(trees: Path) -> None:
    tree = mvtec_loco.scan(trees / "mvtec_loco")
    expected = {"missing_part": 1, "wrong_place": 2, "wrong_count": 2, "swapped_parts": 2, "scratch": 1}
    for sample in tree.queries():
        if sample.defect in expected:
            image = Path(sample.path)
            masks = sorted(
                (tree.root / sample.category / "ground_truth" / image.parent.name / image.stem).glob("*.png")
            )
            assert [mask.name for mask in masks] == [f"{i:03d}.png" for i in range(expected[sample.defect])]
            assert all(Image.open(mask).size == Image.open(tree.file(sample)).size for mask in masks)


def test_anomalous_images_of_the_other_trees_have_a_mask_each(trees: Path) -> None:
    for image in (trees / "mvtec_ad" / "cable" / "test").glob("*/*.png"):
        mask = trees / "mvtec_ad" / "cable" / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        assert mask.is_file() == (image.parent.name != "good")
    anomalies = {path.stem for path in (trees / "visa" / "pcb1" / "Data" / "Images" / "Anomaly").iterdir()}
    masks = {path.stem for path in (trees / "visa" / "pcb1" / "Data" / "Masks" / "Anomaly").iterdir()}
    assert anomalies == masks


def test_each_root_says_that_it_is_synthetic(trees: Path) -> None:
    for folder, dataset in (("mvtec_ad", "synthetic_mvtec_ad"), ("visa", "synthetic_visa")):
        marker = json.loads((trees / folder / MARKER).read_text())
        assert (marker["generator"], marker["dataset"], marker["seed"]) == (GENERATOR, dataset, 3)


def test_same_seed_draws_the_same_trees(trees: Path, tmp_path: Path) -> None:
    draw_trees(tmp_path / "again", seed=3, sizes=SIZES)
    assert digest(tmp_path / "again") == digest(trees)


@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_rendering_leaves_nothing_and_can_be_repeated(lad, tmp_path, monkeypatch, there) -> None:
    """Half a dataset looks like a whole one, and a folder that is not empty is refused."""
    out = tmp_path / "new" / "synthetic"
    if there:
        out.mkdir(parents=True)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    sizes = "--train 1 --test 16 --loco-test 12 --sft 1"
    words = ["build", "synthetic", "--out", str(out), *sizes.split()]
    monkeypatch.setattr("lad_rehearsal.synthetic.trees.write_annotations", interrupt)
    assert lad(*words).exit_code == 130
    assert [path for path in (tmp_path / "new").rglob("*") if path != out] == []
    with locked(out):
        assert "is writing this output" in lad(*words).stderr
    monkeypatch.undo()
    assert lad(*words).exit_code == 0
    assert {path.name for path in out.iterdir()} == {"annotations.jsonl", "mvtec_ad", "mvtec_loco", "sft", "visa"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["synthetic"]


def test_sizes_of_one_tree_leave_the_others_as_they_are(trees: Path, tmp_path: Path) -> None:
    counts = draw_trees(tmp_path, seed=3, sizes=Sizes(train=2, test=16, loco_test=14, sft=1))
    assert digest(tmp_path / "mvtec_ad" / "cable") == digest(trees / "mvtec_ad" / "cable")
    assert counts == {"mvtec_ad": 15 * 18, "visa": 12 * 18, "mvtec_loco": 5 * (2 + 1 + 14 + 3), "annotations": 1}


@few
@given(seeds)
def test_no_layout_is_used_twice(seed: int) -> None:
    layouts = [layout for category in draw_categories(seed).values() for layout in category.values()]
    assert len(layouts) == len(set(layouts)) == 15 + 12 + 5


# --- annotations ----------------------------------------------------------------------------------------------------


def test_annotations_name_pictures_that_exist_and_ask_the_tasks_question(trees: Path) -> None:
    rows = [json.loads(line) for line in (trees / ANNOTATIONS).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == SIZES.sft
    for row in rows:
        assert row["question"].count("<image>") == len(row["images"])
        assert all((trees / image).is_file() for image in row["images"])
        assert row["kind"] in KINDS
        assert row["writer"] == "template"
        if len(row["images"]) == 2:
            assert row["question"] == prompt_text(problem_text())
            label = "no" if row["defect"] == "good" else "yes"
            if row["category"] != "comparison":
                assert rlad_reward(row["answer"], {"label": label})["overall"] == 1


def test_excluded_layouts_are_never_annotated() -> None:
    open_samples = list(draw_samples(50, rng=np.random.default_rng(4)))
    forbidden = {sample.scenes[0].parts for sample in open_samples[:10]}
    samples = list(draw_samples(50, rng=np.random.default_rng(4), exclude=forbidden))
    assert len(samples) == 50
    assert not forbidden & {sample.scenes[0].parts for sample in samples}
