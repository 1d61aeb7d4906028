"""Recipes: what they take from the full trees, and what a wrong one says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from lad_datasets.builders.grpo import choose_queries
from lad_datasets.recipes.recipe import kind_of, read_recipe, shipped_recipes
from lad_datasets.sources import mvtec_ad, visa
from lad_datasets.sources.samples import Sample
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.findings import Findings
from lad_rehearsal.synthetic.scenes import DEFECT_KINDS


@pytest.fixture(scope="module")
def trees(mvtec_tree, visa_tree):
    return [mvtec_ad.scan(mvtec_tree), visa.scan(visa_tree)]


def choose(trees, name: str, seed: int = 0):
    findings = Findings(quiet=True)
    return choose_queries(trees, read_recipe(name), seed=seed, findings=findings), findings


def test_the_papers_set_has_984_queries(trees) -> None:
    queries, findings = choose(trees, "paper")
    assert len(queries) == 984
    assert not findings.lines
    assert Counter(f"{tree.layout}/{sample.category}" for tree, sample in queries) == read_recipe("paper").expected
    assert {sample.kind for _, sample in queries} == {"good", "color", "existence", "functional", "appearance"}
    assert all((sample.kind == "good") == (sample.label == "no") for _, sample in queries)


def test_all_takes_every_test_image(trees) -> None:
    queries, _ = choose(trees, "all")
    assert len(queries) == 1725 + 2162


def test_logical_takes_named_defects_and_as_many_normals(trees) -> None:
    queries, findings = choose(trees[:1], "logical")
    by_category = {c: Counter(s.label for _, s in queries if s.category == c) for c in trees[0].categories}
    assert by_category["cable"] == {"yes": 12 + 12 + 10 + 13 + 11, "no": 58}
    assert by_category["screw"] == {"yes": 24 + 23 + 23, "no": 41}
    assert by_category["zipper"] == {"yes": 19 + 18, "no": 32}
    assert by_category["bottle"] == {}
    assert all(sample.kind != "appearance" for _, sample in queries)
    assert "note: recipe logical: mvtec_ad/screw: only 41 normal images for 70 anomalous ones" in findings.lines
    fewer = {c for c, labels in by_category.items() if labels["no"] < labels["yes"]}
    assert {line.split("/")[1].split(":")[0] for line in findings.lines if "normal images for" in line} == fewer


def test_balanced_normals_are_drawn_by_the_seed(tmp_path, trees) -> None:
    recipe = tmp_path / "one.yaml"
    recipe.write_text(
        "name: one\ndescription: d\nnormals: balanced\nentries:\n"
        "- {dataset: mvtec_ad, category: pill, defects: [PILL TYPE], kind: functional, reason: r}\n"
    )
    first, again, other = (choose(trees, str(recipe), seed)[0] for seed in (0, 0, 1))
    assert Counter(sample.label for _, sample in first) == {"yes": 9, "no": 9}
    assert first == again != other


def test_what_is_missing_is_named_and_counted(trees) -> None:
    tree = trees[0]
    partial = replace(
        tree, samples=tuple(s for s in tree.samples if s.category == "cable" and s.defect != "cable_swap")
    )
    queries, findings = choose([partial], "paper")
    assert len(queries) == 138
    told = "\n".join(findings.lines)
    assert "missing: recipe paper: mvtec_ad/cable: no image with the defect 'cable_swap'" in told
    assert "missing: recipe paper: mvtec_ad/pill: not in" in told
    assert "missing: recipe paper: visa/capsules: no tree of visa is given" in told
    assert "missing: recipe paper: mvtec_ad/cable: 138 of 150 queries" in told
    assert "note: recipe paper: 138 of 984 queries" in told


def test_nothing_left_is_an_error(trees) -> None:
    partial = replace(trees[0], samples=tuple(s for s in trees[0].samples if s.category == "wood"))
    with pytest.raises(DataError, match="no query for recipe paper"):
        choose([partial], "paper")


COLOUR = "-\n  dataset: mvtec_ad\n  category: pill\n  defects: all\n  kind: colour\n  reason: r\n"
ENTRY = "{dataset: mvtec_ad, category: pill, defects: all, kind: color, reason: r}"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (f"name: x\ndescription: d\nnormals: some\nentries:\n- {ENTRY}\n", 3, "normals: Input should be 'all'"),
        ("name: x\ndescription: d\nnormals: all\nentries:\n- {dataset: mvtec_ad}\n", 5, "entries.0.category: Field"),
        (f"name: x\ndescription: d\nnormals: all\nentires:\n- {ENTRY}\n", 4, "entires: Extra inputs"),
        (f"name: x\ndescription: d\nnormals: all\nentries:\n- {ENTRY}\n{COLOUR}", 10, "'colour' is none of"),
        ("name: x\nnormals: [\n", 3, "YAML"),
        ("name: x\nnormals: \a\n", 2, "the character U+0007"),
        ("just text\n", 1, "the file"),
        ("", 1, "the file"),
    ],
)
def test_a_wrong_recipe_names_file_and_line(tmp_path, text, line, message) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_recipe(str(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


def test_an_unknown_category_is_an_error(tmp_path, trees) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: x\ndescription: d\nnormals: all\nentries:\n- {ENTRY.replace('pill', 'pil')}\n")
    with pytest.raises(DataError, match=r"mvtec_ad/pil is not a known category\. Use one of bottle, cable"):
        choose(trees, str(path))


def test_an_unknown_recipe_names_those_there_are() -> None:
    assert shipped_recipes() == ["all", "logical", "paper", "paper-kinds"]
    with pytest.raises(UsageError, match="Use one of all, logical, paper, paper-kinds, or a YAML file"):
        read_recipe("papers")


def test_a_recipe_that_is_nested_too_deeply_is_one_line(tmp_path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("[" * 20_000)
    with pytest.raises(DataError, match="nested too deeply"):
        read_recipe(str(path))


@pytest.mark.parametrize("tag", ["timestamp", "int", "float", "bool"])
def test_a_value_that_does_not_fit_its_tag_is_named(tmp_path, tag) -> None:
    (tmp_path / "own.yaml").write_text(f"description: !!{tag} x\n")
    with pytest.raises(DataError, match="a value does not fit its YAML tag"):
        read_recipe(str(tmp_path / "own.yaml"))


def test_synthetic_defects_have_the_kinds_of_the_recipe() -> None:
    for layout in ("mvtec_ad", "visa"):
        samples = {name: Sample("x.png", "cable", "test", name) for name in DEFECT_KINDS}
        assert {name: kind_of(layout, sample) for name, sample in samples.items()} == DEFECT_KINDS
