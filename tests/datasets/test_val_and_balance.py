"""Held-out queries, balanced labels, kinds of SFT data, and the warning about a constant answer."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lad_datasets.builders.grpo import choose_queries
from lad_datasets.recipes.recipe import read_recipe
from lad_datasets.sources.samples import CC_BY_NC_SA_4, Sample, Tree
from lad_reasoner.support.findings import Findings


@pytest.fixture
def tree(tmp_path, draw_tiny) -> Path:
    """Two categories with 6 normal and 14 anomalous queries each."""
    for category in ("gear", "nut"):
        for place, count in (("train/good", 3), ("test/good", 6), ("test/dent", 10), ("test/hole", 4)):
            for number in range(count):
                draw_tiny(tmp_path / "own" / category / place / f"{number:02d}.png")
    return tmp_path / "own"


def build(lad, tree: Path, out: Path, *words: object):
    return lad("build", "grpo", "--folder", tree, "--out", out, *words)


def test_whole_images_are_held_out_by_category_and_label(lad, tree, tmp_path, rows_of) -> None:
    (tree / "gear/test/dent/copy.png").write_bytes((tree / "gear/test/dent/00.png").read_bytes())
    assert build(lad, tree, tmp_path / "a.parquet", "--val-fraction", 0.25).exit_code == 0
    train, val = rows_of(tmp_path / "a.parquet"), rows_of(tmp_path / "a_val.parquet")
    assert not {row["query_sha256"] for row in train} & {row["query_sha256"] for row in val}
    assert len(train) + len(val) == 41
    held = Counter((row["category"], row["label"]) for row in val)
    assert set(held) == {(category, label) for category in ("gear", "nut") for label in ("yes", "no")}
    assert all(2 <= count <= 5 for count in held.values())
    assert json.loads((tmp_path / "a_val.manifest.json").read_text())["validation_of"] == "a.parquet"
    assert build(lad, tree, tmp_path / "b.parquet", "--val-fraction", 0.25, "--workers", 1).exit_code == 0
    assert (tmp_path / "a_val.parquet").read_bytes() == (tmp_path / "b_val.parquet").read_bytes()
    assert build(lad, tree, tmp_path / "c.parquet", "--val-fraction", 0.25, "--seed", 1).exit_code == 0
    assert (tmp_path / "a_val.parquet").read_bytes() != (tmp_path / "c_val.parquet").read_bytes()
    assert lad("check", tmp_path / "a.parquet", tmp_path / "a_val.parquet").exit_code == 0


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5])
def test_a_fraction_out_of_range(lad, tree, tmp_path, fraction) -> None:
    assert build(lad, tree, tmp_path / "a.parquet", "--val-fraction", fraction).exit_code == 2


def test_a_validation_file_of_a_killed_build_is_made_again_but_no_other(lad, tree, tmp_path) -> None:
    assert build(lad, tree, tmp_path / "a.parquet", "--val-fraction", 0.25).exit_code == 0
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").unlink()
    assert build(lad, tree, tmp_path / "a.parquet", "--val-fraction", 0.25).exit_code == 0
    assert (tmp_path / "a.parquet").read_bytes() == whole
    (tmp_path / "z_val.parquet").write_bytes(b"the user's own")
    assert build(lad, tree, tmp_path / "z.parquet", "--val-fraction", 0.25).exit_code == 2
    assert (tmp_path / "z_val.parquet").read_bytes() == b"the user's own"


def test_shared_queries_are_an_error(lad, tree, tmp_path) -> None:
    assert build(lad, tree, tmp_path / "a.parquet").exit_code == 0
    assert build(lad, tree, tmp_path / "b.parquet", "--seed", 1, "--limit", 5).exit_code == 0
    done = lad("check", tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert done.exit_code == 1
    assert f"5 of its queries are in {tmp_path / 'a.parquet'} too" in done.stderr


def test_balance_evens_out_any_recipe(lad, tree, tmp_path, rows_of) -> None:
    done = build(lad, tree, tmp_path / "a.parquet")
    assert "always answering 'yes' earns 0.700 of the accuracy reward" in done.stderr
    done = build(lad, tree, tmp_path / "b.parquet", "--balance")
    assert "always answering" not in done.stderr
    rows = rows_of(tmp_path / "b.parquet")
    assert Counter((row["category"], row["label"]) for row in rows) == {
        (category, label): 6 for category in ("gear", "nut") for label in ("yes", "no")
    }
    done = lad("check", tmp_path / "a.parquet")
    assert "constant answer: always answering 'yes' earns 0.700" in done.stderr


def test_the_recipes_counts_on_mvtec_ad_at_full_size(facts) -> None:
    samples = [
        Sample(
            f"{row['category']}/{row['split']}/{row['defect']}/{n}.png", row["category"], row["split"], row["defect"]
        )
        for row in facts("mvtec_counts.csv")
        for n in range(int(row["count"]))
    ]
    tree = Tree("mvtec_ad", "mvtec_ad", Path("x"), CC_BY_NC_SA_4, tuple(samples))
    kinds = {}
    for name in ("paper", "paper-kinds"):
        queries = choose_queries([tree], read_recipe(name), seed=0, findings=Findings(quiet=True))
        kinds[name] = Counter(sample.kind for _, sample in queries)
    assert kinds["paper-kinds"] == {"good": 207, "color": 25, "existence": 48, "functional": 134}
    assert kinds["paper"].total() == 824  # and 160 of VisA's capsules
    assert kinds["paper"]["good"] == 230


def test_sft_of_one_kind_keeps_normal_images(lad, tmp_path, draw_tiny) -> None:
    rows = []
    for number, kind in enumerate(["good", "appearance", "color", "appearance"]):
        draw_tiny(tmp_path / f"{number}.png")
        text = {"question": "<image>\nIs it?", "answer": "It is.", "dataset": "own", "category": "gear", "kind": kind}
        rows.append({"id": str(number), "images": [f"{number}.png"], **text})
    (tmp_path / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ("build", "sft", "--annotations", tmp_path, "--out", tmp_path / "sft", "--kinds")
    assert lad(*words, "appearance").exit_code == 0
    kept = json.loads((tmp_path / "sft/train.json").read_text())
    assert [row["id"] for row in kept] == ["0", "1", "3"]
    assert lad(*words, "apperance", "--overwrite").exit_code == 2
    assert lad(*words, "number", "--overwrite").exit_code == 2
