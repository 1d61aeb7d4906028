"""MMAD's questions as pairs: all four datasets, every question, and no path that leaves the folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lad_reasoner.pairs.reader import iter_pairs, read_choices, read_truths
from lad_reasoner.training.reward_keys import score_response

FOLDERS = {
    "DS-MVTec/bottle/image": ("MVTec-AD/bottle/train/good", "png", ("good", "broken_large")),
    "MVTec-LOCO/screw_bag/test": (
        "MVTec-LOCO/screw_bag/train/good",
        "png",
        ("good", "logical_anomalies", "structural_anomalies"),
    ),
    "VisA/candle/test": ("VisA/candle/train/good", "JPG", ("good", "bad")),
    "GoodsAD/food_box/test": ("GoodsAD/food_box/train/good", "jpg", ("good", "opened")),
}
DETECT = {"Question": "Any defect?", "Answer": "A", "Options": {"A": "Yes.", "B": "No."}, "type": "Anomaly Detection"}
ANALYSE = {
    "Question": "What is it?",
    "Answer": "C",
    "Options": {"A": "x", "B": "y", "C": "z"},
    "type": "Object Analysis",
}


def draw(path: Path, seed: int) -> None:
    import numpy as np
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def draw_mmad(root: Path) -> Path:
    """Draw MMAD with one image per folder and two templates per class."""
    entries = {}
    for number, (place, (templates, suffix, defects)) in enumerate(FOLDERS.items()):
        named = [f"{templates}/{index:03d}.{suffix}" for index in range(2)]
        for index, template in enumerate(named):
            draw(root / template, 100 * number + index)
        for index, defect in enumerate(defects):
            key = f"{place}/{defect}/000.{suffix}"
            draw(root / key, 100 * number + 50 + index)
            asked = [DETECT | {"Answer": "B" if defect == "good" else "A"}, ANALYSE]
            entries[key] = {"conversation": asked, "random_templates": named, "similar_templates": named[::-1]}
    (root / "mmad.json").write_text(json.dumps(entries))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_mmad(tmp_path / "MMAD")


def build(lad, folder: Path, *words: str) -> Path:
    out = folder.parent / "mmad.parquet"
    done = lad("build", "mmad", "--root", folder, "--out", out, "--workers", 1, "--overwrite", *words)
    assert done.exit_code == 0, done.stderr
    return out


def change(folder: Path, key: str, **value: object) -> None:
    """Change the first entry, or give it another key."""
    entries = json.loads((folder / "mmad.json").read_text())
    first, old = next(iter(entries.items()))
    del entries[first]
    entries[key or first] = old | value
    (folder / "mmad.json").write_text(json.dumps(entries))


def test_every_question_of_every_dataset_is_a_pair(lad, folder) -> None:
    out = build(lad, folder)
    truths, choices = read_truths(out), read_choices(out)
    assert len(truths) == len(choices) == 18
    assert Counter(truth.category.split("/")[0] for truth in truths) == {
        "DS-MVTec": 4,
        "MVTec-LOCO": 6,
        "VisA": 4,
        "GoodsAD": 4,
    }
    assert {truth.dataset for truth in truths} == {"mmad"}
    for truth in truths:
        assert (truth.kind == "good") == (truth.label == "no") == ("/good/" in truth.pair_id)
    first = choices["mmad/VisA/candle/test/bad/000.JPG#0"]
    assert (first.type, first.options[first.letter]) == ("Anomaly Detection", "Yes.")
    manifest = json.loads(out.with_name("mmad.manifest.json").read_text())
    assert manifest["licences"] == {"mmad": "CC BY-NC-SA 4.0"}
    assert "never to be trained on" in out.with_name("mmad.card.md").read_text()


def test_a_defect_has_the_kind_that_the_recipes_give_it(lad, folder) -> None:
    change(folder, "DS-MVTec/cable/image/cable_swap/000.png")
    draw(folder / "DS-MVTec/cable/image/cable_swap/000.png", 7)
    kinds = {truth.pair_id.split("#")[0]: truth.kind for truth in read_truths(build(lad, folder))}
    assert kinds["mmad/DS-MVTec/cable/image/cable_swap/000.png"] == "color"
    assert set(kinds.values()) == {"good", "color", "logical", "structural", "appearance"}


def test_the_problem_asks_the_question_and_offers_every_option(lad, folder) -> None:
    pair = list(iter_pairs(build(lad, folder)))[1]
    assert pair.problem.splitlines() == ["Reference: <image>", "Query: <image>", "What is it?", "A. x", "B. y", "C. z"]
    assert [image.path.split("MMAD/")[1] for image in pair.images] == [
        "MVTec-AD/bottle/train/good/000.png",
        "DS-MVTec/bottle/image/good/000.png",
    ]


def test_nearest_takes_the_similar_templates_and_shots_several(lad, folder) -> None:
    names = [
        [Path(image.path).name for image in next(iter_pairs(build(lad, folder, *words))).images]
        for words in (("--reference", "nearest"), ("--shots", "2"))
    ]
    assert names == [["001.png", "000.png"], ["000.png", "001.png", "000.png"]]


def test_the_finished_file_passes_the_check_as_evaluation_data(lad, folder) -> None:
    done = lad("check", build(lad, folder, "--images", "embed"), "--json", "--workers", 1)
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert json.dumps(report).count('"purpose": "evaluation"') == 1


def test_limit_takes_images_with_all_their_questions(lad, folder) -> None:
    truths = read_truths(build(lad, folder, "--limit", "3"))
    assert len(truths) == 6
    assert len({truth.query_path for truth in truths}) == 3


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("../secret/image/good/000.png", {}, "stays inside"),
        ("/etc/a/b/c/d.png", {}, "stays inside"),
        ("DS-MVTec/../../x/good/000.png", {}, "stays inside"),
        ("DS-MVTec/good/000.png", {}, "3 parts"),
        ("", {"random_templates": ["../../etc/passwd"]}, "stays inside"),
        ("", {"conversation": [ANALYSE | {"Answer": "D"}]}, "answer 'D'"),
        ("", {"conversation": [ANALYSE | {"Options": {"C": "x", "AA": "y"}}]}, "A to E"),
        ("", {"conversation": [ANALYSE | {"Question": "an <image>?"}]}, "<image>"),
        ("", {"conversation": "none"}, "list"),
    ],
)
def test_a_broken_or_hostile_entry_is_refused_and_named(lad, folder, key, value, told) -> None:
    change(folder, key, **value)
    out = folder.parent / "mmad.parquet"
    done = lad("build", "mmad", "--root", folder, "--out", out, "--workers", 1)
    assert done.exit_code == 0
    assert told in done.stderr
    assert len(read_truths(out)) == 16


def test_too_few_templates_leave_an_image_out(lad, folder) -> None:
    change(folder, "", random_templates=[])
    out = folder.parent / "mmad.parquet"
    done = lad("build", "mmad", "--root", folder, "--out", out, "--workers", 1)
    assert "0 templates" in done.stderr
    assert len(read_truths(out)) == 16


@pytest.mark.parametrize(
    ("words", "told"), [(("--reference", "fixed"), "random or nearest"), (("--max-pixels", "4000"), "--images embed")]
)
def test_options_that_do_not_fit_are_refused(lad, folder, words, told) -> None:
    done = lad("build", "mmad", "--root", folder, "--out", folder.parent / "m.parquet", *words)
    assert done.exit_code == 2
    assert told in done.stderr


def test_a_linked_dataset_folder_is_followed(lad, folder, tmp_path) -> None:
    """MMAD's README lets a dataset's folder be a link."""
    (folder / "VisA").rename(tmp_path / "elsewhere")
    (folder / "VisA").symlink_to(tmp_path / "elsewhere")
    assert len(read_truths(build(lad, folder))) == 18


def test_no_mmad_json_says_so(lad, tmp_path) -> None:
    done = lad("build", "mmad", "--root", tmp_path, "--out", tmp_path / "m.parquet")
    assert done.exit_code == 1
    assert "no mmad.json" in done.stderr


def test_a_link_out_of_a_dataset_s_folder_is_not_followed(lad, folder, tmp_path) -> None:
    target = folder / "DS-MVTec/bottle/image/good/000.png"
    draw(tmp_path / "outside.png", 7)
    target.unlink()
    target.symlink_to(tmp_path / "outside.png")
    done = lad("build", "mmad", "--root", folder, "--out", tmp_path / "x.parquet", "--workers", 1)
    assert "a link to outside" in done.stderr
    assert all("outside" not in row.truth.query_path for row in iter_pairs(tmp_path / "x.parquet"))
    assert len(read_truths(tmp_path / "x.parquet")) == 16


def test_backslashes_in_keys_and_templates_are_slashes(lad, folder) -> None:
    before = [truth.pair_id for truth in read_truths(build(lad, folder))]
    text = (folder / "mmad.json").read_text()
    (folder / "mmad.json").write_text(text.replace("/", "\\\\"))
    assert [truth.pair_id for truth in read_truths(build(lad, folder))] == before


def test_a_zero_shot_index_gets_a_remedy_that_works(lad, folder, tmp_path) -> None:
    entries = json.loads((folder / "mmad.json").read_text())
    entries = {key: {"conversation": value["conversation"]} for key, value in entries.items()}
    (folder / "mmad.json").write_text(json.dumps(entries))
    done = lad("build", "mmad", "--root", folder, "--out", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert "zero-shot index. Use an mmad.json with similar_templates" in done.stderr


def test_too_many_shots_name_how_many_there_are(lad, folder, tmp_path) -> None:
    done = lad("build", "mmad", "--root", folder, "--out", tmp_path / "x.parquet", "--shots", 5)
    assert "Use --shots 2 or fewer" in done.stderr


def test_a_training_file_has_neither_loco_nor_goodsad_and_pays_for_the_letter(lad, folder) -> None:
    out = folder.parent / "train.parquet"
    words = ("build", "mmad", "--root", folder, "--out", out, "--training", "--workers", 1, "--images", "embed")
    done = lad(*words)
    assert done.exit_code == 0, done.stderr
    truths = read_truths(out)
    assert Counter(truth.category.split("/")[0] for truth in truths) == {"DS-MVTec": 4, "VisA": 4}
    assert {truth.dataset for truth in truths} == {"mmad_train"}
    assert "MVTec-LOCO/screw_bag/test/good/000.png: for evaluation alone" in done.stderr
    for truth in truths:
        letter = truth.gold.choice["letter"]
        for said, paid in ((letter, 1.0), (letter.lower(), 1.0), ("ABC".replace(letter, "")[0], 0.5), ("yes", 0.5)):
            reward = score_response(f"<think> compared </think><answer> {said} </answer>", truth.answer)
            assert reward["overall"] == paid
            assert "tp" not in reward
    checked = lad("check", out, "--json", "--workers", 1)
    assert checked.exit_code == 0, checked.stdout
    assert '"purpose": "training"' in checked.stdout


def test_only_a_training_file_holds_images_out_with_all_their_questions(lad, folder) -> None:
    entries = json.loads((folder / "mmad.json").read_text())
    for number in range(1, 4):
        draw(folder / f"DS-MVTec/bottle/image/good/{number:03d}.png", 900 + number)
        entries[f"DS-MVTec/bottle/image/good/{number:03d}.png"] = entries["DS-MVTec/bottle/image/good/000.png"]
    (folder / "mmad.json").write_text(json.dumps(entries))
    words = ("build", "mmad", "--root", folder, "--val-fraction", 0.3)
    done = lad(*words, "--out", folder.parent / "train.parquet", "--training", "--workers", 1)
    assert done.exit_code == 0, done.stderr
    assert f"held out: {folder.parent / 'train_val.parquet'}" in done.stderr
    train, val = (read_truths(folder.parent / name) for name in ("train.parquet", "train_val.parquet"))
    assert (len(train), len(val)) == (12, 2)
    assert not {truth.query_path for truth in train} & {truth.query_path for truth in val}
    done = lad("build", "mmad", "--root", folder, "--out", folder.parent / "x.parquet", "--val-fraction", 0.3)
    assert done.exit_code == 2
    assert "go with --training" in done.stderr


def test_a_training_file_that_hides_a_loco_image_is_refused(lad, folder) -> None:
    loco = folder / "MVTec-LOCO"
    for name in ("good", "logical_anomalies"):
        (folder / "DS-MVTec/bottle/image/good/000.png").write_bytes(
            (loco / f"screw_bag/test/{name}/000.png").read_bytes()
        )
    out = folder.parent / "train.parquet"
    done = lad("build", "mmad", "--root", folder, "--out", out, "--training", "--loco", loco, "--workers", 1)
    assert done.exit_code == 1
    assert "MVTec LOCO AD test image" in done.stderr
