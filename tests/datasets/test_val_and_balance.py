"""Held-out queries, balanced labels, kinds of SFT data, and the warning about a constant answer."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from lad_datasets.builders.grpo import choose_queries
from lad_datasets.recipes.recipe import kind_of, read_recipe, shipped_recipes
from lad_datasets.sources.samples import CC_BY_4, CC_BY_NC_SA_4, UNNAMED, Sample, Tree
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


def test_what_is_found_in_the_held_out_file_names_it(lad, tree, tmp_path) -> None:
    for path in (tree / "nut" / "test" / "good").glob("0[1-9].png"):
        path.unlink()
    done = build(lad, tree, tmp_path / "a.parquet", "--val-fraction", 0.25)
    assert "one label: a_val.parquet: folder/nut: every answer is" in done.stderr
    assert f"{tmp_path / 'a.parquet'}: " in done.stderr
    assert f"held out: {tmp_path / 'a_val.parquet'}" in done.stderr


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
    assert (
        "always answering 'yes' is right for 70.0% of the pairs and earns that share of the accuracy reward"
        in done.stderr
    )
    done = build(lad, tree, tmp_path / "b.parquet", "--balance")
    assert "always answering" not in done.stderr
    rows = rows_of(tmp_path / "b.parquet")
    assert Counter((row["category"], row["label"]) for row in rows) == {
        (category, label): 6 for category in ("gear", "nut") for label in ("yes", "no")
    }
    done = lad("check", tmp_path / "a.parquet")
    assert "constant answer: always answering 'yes' is right for 70.0%" in done.stderr


@pytest.fixture
def full_size(facts) -> list[Tree]:
    """MVTec AD and VisA at their real counts and splits, without pictures.

    VisA's index tells normal from anomalous, not the defect: the anomalies of a category take the names that
    paper-kinds lists for it, and one other name, in turn.
    """
    mvtec = [
        Sample(
            f"{row['category']}/{row['split']}/{row['defect']}/{n}.png", row["category"], row["split"], row["defect"]
        )
        for row in facts("mvtec_counts.csv")
        for n in range(int(row["count"]))
    ]
    named: dict[str, list[str]] = defaultdict(list)
    for entry in read_recipe("paper-kinds").entries:
        if entry.dataset == "visa":
            named[entry.category] += entry.defects
    names = {row["object"]: cycle([*named[row["object"]], "other"]) for row in facts("visa_1cls.csv")}
    visa = [
        Sample(
            row["image"],
            row["object"],
            row["split"],
            "good" if row["label"] == "normal" else next(names[row["object"]]),
        )
        for row in facts("visa_1cls.csv")
    ]
    trees = (("mvtec_ad", CC_BY_NC_SA_4, mvtec), ("visa", CC_BY_4, visa))
    return [Tree(name, name, Path("x"), licence, tuple(samples)) for name, licence, samples in trees]


def kinds_of(trees: list[Tree], recipe: str) -> Counter[str]:
    return Counter(
        sample.kind for _, sample in choose_queries(trees, read_recipe(recipe), seed=0, findings=Findings(quiet=True))
    )


def test_the_recipes_counts_at_full_size(full_size) -> None:
    mvtec, visa = full_size
    assert kinds_of([mvtec], "paper-kinds") == {"good": 207, "color": 25, "existence": 48, "functional": 134}
    # Candle: 34, 33 of 100; capsules and pcb1 to 3: 50 each; pcb4: 25 of each of three names.
    assert kinds_of([visa], "paper-kinds") == {
        "good": 342,
        "color": 50,
        "existence": 34 + 3 * 50 + 25,
        "number": 33 + 25,
        "functional": 25,
    }
    assert kinds_of(full_size, "paper-kinds").total() == 2 * (207 + 342)
    paper = kinds_of(full_size, "paper")
    assert paper.total() == 984
    assert paper["good"] == 290
    assert "number" not in paper
    assert kinds_of(full_size, "all").total() == 1725 + 2162


@pytest.mark.parametrize("recipe", shipped_recipes())
def test_every_recipe_gives_a_defect_the_kind_that_annotations_give_it(full_size, recipe) -> None:
    queries = choose_queries(full_size, read_recipe(recipe), seed=0, findings=Findings(quiet=True))
    assert {(s.category, s.defect): s.kind for _, s in queries} == {
        (s.category, s.defect): kind_of(tree.layout, s) for tree, s in queries
    }


def test_the_stated_share_of_appearance_in_the_papers_recipe(full_size) -> None:
    """The converted layout of VisA, which the figure is about, does not name defects."""
    mvtec, visa = full_size
    samples = [replace(one, defect=UNNAMED) if one.defect != "good" else one for one in visa.samples]
    kinds = kinds_of([mvtec, replace(visa, samples=tuple(samples))], "paper")
    assert f"{kinds['appearance'] / (984 - kinds['good']):.1%}" == "54.9%"


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
