"""A query's references depend on the seed, the dataset, the category, its path and the candidates; on nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_datasets.pairing.reference import ReferenceOrder
from lad_datasets.sources.samples import OWN_DATA, Sample, Tree

NAMES = st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=12, unique=True)


def tree_of(names: list[str], queries: list[str] = ("q",), dataset: str = "d") -> Tree:
    references = [Sample(f"c/train/good/{name}", "c", "train", "good") for name in names]
    asked = [Sample(f"c/test/good/{name}", "c", "test", "good") for name in queries]
    return Tree(dataset, "folder", Path("/t"), OWN_DATA, (*references, *asked))


def order(tree: Tree, *, seed: int = 0, query: str = "q", policy: str = "random") -> list[str]:
    sample = next(s for s in tree.queries() if s.path == f"c/test/good/{query}")
    return [s.path for s in ReferenceOrder(tree, policy, seed=seed).iter_candidates(sample)]


@settings(deadline=None)
@given(NAMES, st.randoms(use_true_random=False))
def test_the_order_of_files_and_other_queries_do_not_matter(names, random) -> None:
    shuffled = random.sample(names, len(names))
    assert order(tree_of(names)) == order(tree_of(shuffled, ["other", "q", "more"]))


@settings(deadline=None)
@given(NAMES, st.text(min_size=1, max_size=6))
def test_a_new_candidate_takes_its_place_and_moves_no_other(names, new) -> None:
    added = f"c/train/good/{new}"
    before = [path for path in order(tree_of(names)) if path != added]
    after = [path for path in order(tree_of(list(dict.fromkeys([*names, new])))) if path != added]
    assert before == after


@settings(deadline=None)
@given(NAMES)
def test_every_candidate_comes_once(names) -> None:
    for policy in ("random", "fixed"):
        assert sorted(order(tree_of(names), policy=policy)) == sorted(f"c/train/good/{name}" for name in names)


def test_seed_dataset_and_query_each_change_the_draw() -> None:
    names = [f"{i:03d}" for i in range(200)]
    queries = [f"{i}" for i in range(20)]
    tree = tree_of(names, queries)
    base = [order(tree, query=query)[0] for query in queries]
    assert len(set(base)) > 15
    assert [order(tree, query=query, seed=1)[0] for query in queries] != base
    assert [order(tree_of(names, queries, "e"), query=query)[0] for query in queries] != base


def test_candidates_are_drawn_evenly() -> None:
    names = [f"{i}" for i in range(5)]
    queries = [f"{i}" for i in range(2000)]
    tree = tree_of(names, queries)
    references = ReferenceOrder(tree, "random", seed=3)
    drawn = Counter(next(references.iter_candidates(query)).path for query in tree.queries())
    assert len(drawn) == 5
    assert all(320 < count < 480 for count in drawn.values()), drawn  # 400 expected, standard deviation 18


def test_fixed_is_the_first_by_name_for_every_query() -> None:
    assert order(tree_of(["b", "a", "c"]), policy="fixed")[0] == "c/train/good/a"


def test_nearest_is_the_most_alike_and_leaves_out_what_has_no_look() -> None:
    tree = tree_of(["a", "b", "c", "unreadable"])
    looks = {
        f"c/{where}": np.array([value], dtype=np.uint64)
        for where, value in (
            ("train/good/a", 0b1111),
            ("train/good/b", 0b1),
            ("train/good/c", 0b0),
            ("test/good/q", 0),
        )
    }
    (query,) = tree.queries()
    nearest = ReferenceOrder(tree, "nearest", looks=looks)
    assert [s.path[-1] for s in nearest.iter_candidates(query)] == ["c", "b", "a"]
    assert nearest.count("c") == 3


def test_the_query_is_never_its_own_reference() -> None:
    reference = Sample("c/train/good/a", "c", "train", "good")
    tree = Tree("d", "folder", Path("/t"), OWN_DATA, (reference,))
    assert list(ReferenceOrder(tree, "random").iter_candidates(reference)) == []
