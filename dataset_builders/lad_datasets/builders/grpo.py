"""The GRPO set: test images of MVTec AD, VisA or a user's folder, chosen by a recipe, each with a normal reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lad_datasets.builders.build import build_pairs, claim_output, order_queries
from lad_datasets.builders.describe import About
from lad_datasets.builders.options import Options
from lad_datasets.leakage.guard import Guard, refuse_test_image
from lad_datasets.pairing.reference import draw_key
from lad_datasets.recipes.recipe import ALL, Recipe, defect_names, read_recipe, spell
from lad_datasets.sources import folder, mvtec_ad, visa
from lad_datasets.sources.samples import GOOD, Sample, Tree
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.findings import Findings
from lad_reasoner.task.task import NORMAL

__all__ = ["LAYOUTS", "build_grpo", "choose_queries", "draw_limit"]

#: What can be trained on, by source module.
LAYOUTS: Final[dict[str, Callable[[Path], Tree]]] = {
    "mvtec_ad": mvtec_ad.scan,
    "visa": visa.scan,
    "folder": folder.scan,
}

#: Categories that exist at all; a user's own are not known.
_CATEGORIES: Final[dict[str, Sequence[str]]] = {"mvtec_ad": mvtec_ad.CATEGORIES, "visa": visa.CATEGORIES}

_TEXT: Final = """
Each row is a normal reference image, a query image of the same category and whether the query is anomalous, for
reinforcement learning with verifiable rewards. EasyR1 reads `problem`, `images` and `answer`; verl reads `prompt`,
`images`, `reward_model` and `data_source`.

Recipe `{name}`: {description}
"""


def build_grpo(
    roots: Mapping[str, Path], out: Path, options: Options, *, recipe: str, limit: int | None, loco: Path | None
) -> dict[str, Any]:
    """Build the GRPO set.

    Args:
        roots: Tree by layout: mvtec_ad, visa, folder.
        out: The parquet, or with ``options.shard_mb`` the folder of shards.
        options: How pairs are made.
        recipe: Name of a shipped recipe, or the path of one.
        limit: Take this many queries, drawn by the seed.
        loco: An MVTec LOCO AD tree: none of its test images may be among the images.

    Returns:
        The manifest.

    Raises:
        UsageError: No tree is given, the recipe is unknown, or the output cannot be made.
        DataError: A tree or the recipe is not as expected, an image is unreadable or a test image of MVTec LOCO AD,
            or nothing is left.
    """
    chosen = read_recipe(recipe)
    if not roots:
        raise UsageError("give at least one of --mvtec, --visa and --folder", where="lad build grpo")
    with claim_output(out, options):
        return _build(roots, out, options, recipe=chosen, limit=limit, loco=loco)


def _build(
    roots: Mapping[str, Path], out: Path, options: Options, *, recipe: Recipe, limit: int | None, loco: Path | None
) -> dict[str, Any]:
    findings = Findings()
    trees = [LAYOUTS[layout](root) for layout, root in roots.items()]
    for tree in trees:
        for note in tree.notes:
            findings.add("note", note)
        refuse_test_image(tree.dataset, (sample.path for sample in tree.samples), where=tree.root)
    queries = choose_queries(trees, recipe, seed=options.seed, findings=findings)
    planned = order_queries(trees, draw_limit(queries, limit, options.seed), options, findings)
    guard = Guard(loco, workers=options.workers) if loco else None
    about = About(
        verb="lad build grpo",
        title=f"Reference/query pairs for GRPO: recipe {recipe.name}",
        text=_TEXT.format(name=recipe.name, description=recipe.description),
        split="train",
        recorded={"recipe": recipe.model_dump(mode="json"), "limit": limit},
        licences={tree.dataset: tree.licence for tree in trees},
    )
    return build_pairs(planned, out, options, findings, about=about, guard=guard)


def draw_limit(queries: Sequence[tuple[Tree, Sample]], limit: int | None, seed: int) -> Sequence[tuple[Tree, Sample]]:
    """Return at most ``limit`` queries, drawn by the seed, in the order given."""
    if limit is None or limit >= len(queries):
        return queries
    drawn = sorted(queries, key=lambda query: draw_key(seed, "limit", query[0].dataset, query[1].path))
    kept = {(id(tree), sample.path) for tree, sample in drawn[:limit]}
    return [query for query in queries if (id(query[0]), query[1].path) in kept]


def choose_queries(
    trees: Sequence[Tree], recipe: Recipe, *, seed: int, findings: Findings
) -> list[tuple[Tree, Sample]]:
    """Return the queries a recipe takes from the trees, in tree order, each with its kind.

    What the recipe names and the trees lack is told and counted, and the rest is taken.

    Raises:
        DataError: The recipe names a category that does not exist, or nothing is left.
    """
    by_layout = {tree.layout: tree for tree in trees}
    _tell_missing(recipe, by_layout, findings)
    queries: list[tuple[Tree, Sample]] = []
    for tree in trees:
        for category in tree.categories:
            if recipe.takes_category(tree.layout, category):
                own = _choose_in_category(tree, category, recipe, seed, findings)
                queries += [(tree, sample) for sample in own]
    found = Counter(f"{tree.layout}/{sample.category}" for tree, sample in queries)
    for name, expected in recipe.expected.items():
        if found[name] != expected:
            findings.add("missing", f"recipe {recipe.name}: {name}: found {found[name]} of {expected} queries")
    if recipe.expected and len(queries) != (total := sum(recipe.expected.values())):
        findings.add("note", f"recipe {recipe.name}: found {len(queries)} of {total} queries")
    if not queries:
        roots = ", ".join(str(tree.root) for tree in trees)
        raise DataError(
            roots,
            found=f"no query for recipe {recipe.name}",
            expected=", ".join(sorted({f"{entry.dataset}/{entry.category}" for entry in recipe.entries})),
            remedy="put test images into <category>/test" if recipe.name == ALL else "try --recipe all",
        )
    return queries


def _choose_in_category(tree: Tree, category: str, recipe: Recipe, seed: int, findings: Findings) -> list[Sample]:
    own = [sample for sample in tree.queries() if sample.category == category]
    anomalous = {
        sample.path: replace(sample, kind=kind)
        for sample in own
        if sample.label != NORMAL and (kind := recipe.kind_of(tree.layout, sample))
    }
    normal = [replace(sample, kind=GOOD) for sample in own if sample.label == NORMAL]
    if recipe.normals == "balanced":
        if len(normal) < len(anomalous):
            few = f"found {len(normal)} normal images for {len(anomalous)} anomalous ones"
            findings.add("note", f"recipe {recipe.name}: {tree.layout}/{category}: {few}")
        normal = sorted(normal, key=lambda sample: draw_key(seed, "normals", tree.dataset, sample.path))[
            : len(anomalous)
        ]
    elif recipe.normals == "none":
        normal = []
    taken = anomalous | {sample.path: sample for sample in normal}
    return [taken[sample.path] for sample in own if sample.path in taken]


def _tell_missing(recipe: Recipe, trees: Mapping[str, Tree], findings: Findings) -> None:
    """Tell of each dataset, category and defect that the recipe names and no tree has.

    Where a recipe takes every category of a dataset, an entry of one category only tells its kind: it is not missed.
    """
    sweeping = {entry.dataset for entry in recipe.entries if entry.category == ALL}
    for entry in recipe.entries:
        known = _CATEGORIES.get(entry.dataset)
        tree = trees.get(entry.dataset)
        categories = tree.categories if tree else []
        if entry.category != ALL and known and entry.category not in {*known, *categories}:
            raise DataError(
                f"recipe {recipe.name}",
                found=f"the unknown category {entry.dataset}/{entry.category}",
                expected=", ".join(known),
            )
        where = f"recipe {recipe.name}: {entry.dataset}/{entry.category}"
        if entry.dataset in sweeping:
            continue
        if tree is None:
            findings.add("missing", f"{where}: no tree of {entry.dataset} is given")
        elif entry.category not in categories:
            findings.add("missing", f"{where}: not in {tree.root}")
        elif entry.defects != ALL:
            own = (sample for sample in tree.queries() if sample.category == entry.category)
            names = {name for sample in own for name in defect_names(sample)}
            for defect in entry.defects:
                if spell(defect) not in names:
                    findings.add("missing", f"{where}: no image with the defect {defect!r}")
