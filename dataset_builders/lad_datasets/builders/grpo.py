"""The GRPO set: test images of MVTec AD, VisA or a user's folder, chosen by a recipe, each with a normal reference."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lad_datasets.builders.build import build_pairs, claim_output, order_queries
from lad_datasets.builders.describe import About, description_files
from lad_datasets.builders.options import Options
from lad_datasets.files.images import sha256
from lad_datasets.files.manifest import read_object
from lad_datasets.leakage.guard import Guard, refuse_test_image
from lad_datasets.pairing.assemble import Query
from lad_datasets.pairing.reference import draw_key
from lad_datasets.recipes.recipe import ALL, Recipe, defect_names, read_recipe, spell
from lad_datasets.sources import folder, mvtec_ad, visa
from lad_datasets.sources.folder_names import COMMON, FolderNames
from lad_datasets.sources.samples import GOOD, Sample, Tree
from lad_reasoner.pairs.images import read_image_bytes
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.findings import Findings
from lad_reasoner.task.task import ANOMALOUS, NORMAL

__all__ = [
    "LAYOUTS",
    "build_grpo",
    "build_split",
    "choose_queries",
    "claim_outputs",
    "draw_limit",
    "split_queries",
    "validation_path",
]

#: What can be trained on, by source module.
LAYOUTS: Final[dict[str, Callable[[Path, FolderNames], Tree]]] = {
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
    roots: Mapping[str, Path],
    out: Path,
    options: Options,
    *,
    recipe: str = "paper",
    limit: int | None = None,
    loco: Path | None = None,
    names: FolderNames = COMMON,
    val_fraction: float = 0.0,
    balance: bool = False,
) -> dict[str, Any]:
    """Build the GRPO set and return the manifest of the training file.

    `lad_datasets.build_grpo` describes the arguments; ``roots`` has the tree of each layout: mvtec_ad, visa, folder.
    """
    chosen = read_recipe(recipe)
    if not roots:
        raise UsageError("give at least one of --mvtec, --visa and --folder", where="lad build grpo")
    if balance:
        chosen = chosen.model_copy(update={"balance": True, "expected": {}})
    findings = Findings()
    with claim_outputs(out, options, val_fraction=val_fraction):
        trees = [LAYOUTS[layout](root, names) for layout, root in roots.items()]
        for tree in trees:
            for note in tree.notes:
                findings.add("note", note)
            refuse_test_image(tree.dataset, (s.path for s in tree.samples), where=tree.root, root=tree.root)
        queries = choose_queries(trees, chosen, seed=options.seed, findings=findings)
        planned = order_queries(trees, draw_limit(queries, limit, options.seed), options, findings)
        guard = Guard(loco, workers=options.workers) if loco else None
        about = About(
            verb="lad build grpo",
            title=f"Reference/query pairs for GRPO: recipe {chosen.name}",
            text=_TEXT.format(name=chosen.name, description=chosen.description),
            split="train",
            recorded={"recipe": chosen.model_dump(mode="json"), "limit": limit, "val_fraction": val_fraction},
            licences={tree.dataset: tree.licence for tree in trees},
        )
        return build_split(planned, out, options, findings, about=about, guard=guard, val_fraction=val_fraction)


@contextmanager
def claim_outputs(out: Path, options: Options, *, val_fraction: float) -> Iterator[None]:
    """Hold the locks of a training file and of its validation file, if any is asked for, as `claim_output`."""
    if not 0 <= val_fraction < 1:
        raise UsageError(f"{val_fraction} is not 0 or more and below 1", where="--val-fraction")
    with ExitStack() as claims:
        claims.enter_context(claim_output(out, options))
        if val_fraction:
            again = replace(options, overwrite=options.overwrite or _is_leftover(validation_path(out), out))
            claims.enter_context(claim_output(validation_path(out), again))
        yield


def build_split(
    planned: Sequence[Query],
    out: Path,
    options: Options,
    findings: Findings,
    *,
    about: About,
    guard: Guard | None,
    val_fraction: float,
) -> dict[str, Any]:
    """Write the training file, and the held-out images to `validation_path`; return the training file's manifest."""
    if not val_fraction:
        return build_pairs(planned, out, options, findings, about=about, guard=guard)
    train, held_out = split_queries(planned, val_fraction=val_fraction, seed=options.seed)
    if not train or not held_out:
        problem = f"{len(planned)} queries are too few to hold out {val_fraction:g} of them"
        raise DataError(problem, where="--val-fraction")
    part = replace(about, split="validation", recorded={**about.recorded, "validation_of": out.name})
    validation = validation_path(out)
    build_pairs(held_out, validation, options, Findings(of=validation.name), about=part, guard=guard)
    return build_pairs(train, out, options, findings, about=about, guard=guard)


def validation_path(out: Path) -> Path:
    """Return where the held-out pairs of an output go.

    Example:
        >>> from pathlib import Path
        >>> from lad_datasets.builders.grpo import validation_path
        >>> validation_path(Path("data/grpo.parquet")).name
        'grpo_val.parquet'
    """
    return out.with_name(f"{out.name.removesuffix('.parquet')}_val{'.parquet' * out.name.endswith('.parquet')}")


def _is_leftover(validation: Path, out: Path) -> bool:
    """Return whether a validation file is of a build that was killed before its training file was there."""
    return not out.exists() and read_object(description_files(validation)[0]).get("validation_of") == out.name


def split_queries(planned: Sequence[Query], *, val_fraction: float, seed: int) -> tuple[list[Query], list[Query]]:
    """Hold out whole images: in each category, a share of the normal and of the anomalous ones.

    Images are compared by content, so that a copy under another name stays with its original. The choice depends only
    on the seed and the content. Training and held-out queries are returned in the order given.
    """
    images = [(query, _digest(query)) for query in planned]
    groups: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    labels: dict[str, tuple[str, str, str]] = {}
    for query, digest in images:
        group = labels.setdefault(digest, (query.tree.dataset, query.sample.category, query.sample.label))
        groups[group].add(digest)
    held_out: set[str] = set()
    for own in groups.values():
        wanted = max(1, round(val_fraction * len(own))) if len(own) > 1 else 0
        held_out |= set(sorted(own, key=lambda digest: draw_key(seed, "validation", digest))[:wanted])
    train = [query for query, digest in images if digest not in held_out]
    return train, [query for query, digest in images if digest in held_out]


def _digest(query: Query) -> str:
    """Return an image's digest; of an unreadable one, which the build reports, its path."""
    path = query.tree.file(query.sample)
    try:
        return sha256(read_image_bytes(path))
    except DataError:
        return str(path)


def draw_limit(queries: Sequence[tuple[Tree, Sample]], limit: int | None, seed: int) -> Sequence[tuple[Tree, Sample]]:
    """Return at most ``limit`` queries, sampled with the seed, in the order given."""
    if limit is None or limit >= len(queries):
        return queries
    drawn = sorted(queries, key=lambda query: draw_key(seed, "limit", query[0].dataset, query[1].path))
    kept = {(id(tree), sample.path) for tree, sample in drawn[:limit]}
    return [query for query in queries if (id(query[0]), query[1].path) in kept]


def choose_queries(
    trees: Sequence[Tree], recipe: Recipe, *, seed: int, findings: Findings
) -> list[tuple[Tree, Sample]]:
    """Return the queries a recipe takes from the trees, in tree order, each with its kind.

    Entries missing from the trees are reported and counted; the rest is used.

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
            findings.add("missing", f"recipe {recipe.name}: {name}: {found[name]} of {expected} queries")
    if recipe.expected and len(queries) != (total := sum(recipe.expected.values())):
        findings.add("note", f"recipe {recipe.name}: {len(queries)} of {total} queries")
    if not queries:
        roots = ", ".join(str(tree.root) for tree in trees)
        needed = sorted({f"{entry.dataset}/{entry.category}" for entry in recipe.entries})
        problem = f"there is no query for recipe {recipe.name}, which needs {', '.join(needed)}"
        remedy = "Put test images into <category>/test" if recipe.name == ALL else "Try --recipe all"
        raise DataError(problem, where=roots, remedy=remedy)
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
            few = f"only {len(normal)} normal images for {len(anomalous)} anomalous ones"
            findings.add("note", f"recipe {recipe.name}: {tree.layout}/{category}: {few}")
        normal.sort(key=lambda sample: draw_key(seed, "normals", tree.dataset, sample.path))
        del normal[len(anomalous) :]
    elif recipe.normals == "none":
        normal = []
    taken = anomalous | {sample.path: sample for sample in normal}
    if recipe.balance:
        taken = _balance(taken, tree, category, seed, findings)
    return [taken[sample.path] for sample in own if sample.path in taken]


def _balance(
    taken: Mapping[str, Sample], tree: Tree, category: str, seed: int, findings: Findings
) -> dict[str, Sample]:
    """Keep as many normal as anomalous samples; of the anomalous ones, about as many of each kind."""
    labels: dict[str, list[Sample]] = {NORMAL: [], ANOMALOUS: []}
    ranks: Counter[str] = Counter()
    for sample in sorted(taken.values(), key=lambda sample: draw_key(seed, "balance", tree.dataset, sample.path)):
        labels[sample.label].append(sample)
    each = min(len(samples) for samples in labels.values())
    if each == 0 and taken:
        findings.add("left out", f"{tree.layout}/{category}: all {len(taken)} queries have one label")
    ranked = []
    for sample in labels[ANOMALOUS]:
        ranked.append((ranks[str(sample.kind)], sample))
        ranks[str(sample.kind)] += 1
    anomalous = [sample for _, sample in sorted(ranked, key=lambda item: item[0])[:each]]
    return {sample.path: sample for sample in (*anomalous, *labels[NORMAL][:each])}


def _tell_missing(recipe: Recipe, trees: Mapping[str, Tree], findings: Findings) -> None:
    """Report each dataset, category and defect that the recipe names and no tree has.

    Where a recipe takes every category of a dataset, an entry of one category only tells its kind: it is not missed.
    """
    sweeping = {entry.dataset for entry in recipe.entries if entry.category == ALL}
    for entry in recipe.entries:
        known = _CATEGORIES.get(entry.dataset)
        tree = trees.get(entry.dataset)
        categories = tree.categories if tree else []
        if entry.category != ALL and known and entry.category not in {*known, *categories}:
            problem = f"{entry.dataset}/{entry.category} is not a known category"
            raise DataError(problem, where=f"recipe {recipe.name}", remedy=f"Use one of {', '.join(known)}")
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
