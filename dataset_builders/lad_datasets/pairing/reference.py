"""Which normal training images a query is compared to.

The order of preference of a query depends on nothing but the seed, the dataset, the category, the query's path and the
candidates: each candidate gets a pseudo-random weight for this query (rendezvous hashing), and the heaviest comes
first. So the order of files does not matter, and data added later leaves earlier pairs alone unless the new image is
itself the heaviest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from lad_datasets.sources.samples import Sample, Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

__all__ = ["CandidateOrder", "Policy", "ReferenceOrder", "draw_key"]

Policy = Literal["random", "fixed", "nearest"]


def draw_key(*parts: object) -> int:
    """Return 64 bits that depend on every part and on nothing else.

    Example:
        >>> draw_key(0, "cable", "a.png") == draw_key(0, "cable", "a.png") != draw_key(1, "cable", "a.png")
        True
    """
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


class CandidateOrder(Protocol):
    """Something that says which references a query should have."""

    def iter_candidates(self, query: Sample) -> Iterator[Sample]:
        """Yield the candidates for a query, best first; never the query itself."""
        ...

    def looks_same(self, query: Sample, candidate: Sample) -> bool:
        """Return whether both are known to have one perceptual hash."""
        ...


class ReferenceOrder:
    """The candidates of each query, best first.

    Args:
        tree: Whose normal training images are the candidates.
        policy: "random": seeded, a different one for each query. "fixed": by name, the same for every query of a
            category. "nearest": by the distance of perceptual hashes, then by name.
        seed: Seed of the random policy.
        looks: Perceptual hash by path, for "nearest": of the queries and of the candidates to choose from.
    """

    def __init__(self, tree: Tree, policy: Policy, *, seed: int = 0, looks: Mapping[str, Words] | None = None) -> None:
        self._tree, self._policy, self._seed, self._looks = tree, policy, seed, looks or {}
        self._candidates: dict[str, list[Sample]] = {category: [] for category in tree.categories}
        for sample in sorted(tree.samples, key=lambda sample: sample.path):
            if sample.split == "train" and (policy != "nearest" or sample.path in self._looks):
                self._candidates[sample.category].append(sample)
        self._words = {
            category: self._weigh(candidates) for category, candidates in self._candidates.items() if candidates
        }

    def count(self, category: str) -> int:
        """Return how many candidates a category has."""
        return len(self._candidates.get(category, ()))

    def iter_candidates(self, query: Sample) -> Iterator[Sample]:
        """Yield the candidates for a query, best first; never the query itself."""
        if candidates := self._candidates.get(query.category):
            ordered = (candidates[index] for index in self._order(query, candidates))
            yield from (candidate for candidate in ordered if candidate.path != query.path)

    def looks_same(self, query: Sample, candidate: Sample) -> bool:
        """Return whether both are known to have one perceptual hash."""
        own, other = self._looks.get(query.path), self._looks.get(candidate.path)
        return own is not None and other is not None and bool((own == other).all())

    def _order(self, query: Sample, candidates: list[Sample]) -> Iterator[int]:
        import numpy as np

        if self._policy == "fixed":
            return iter(range(len(candidates)))
        words = self._words[query.category]
        if self._policy == "random":
            key = draw_key(self._seed, self._tree.dataset, query.category, query.path)
            weights = _mix(words ^ np.uint64(key))
        elif query.path in self._looks:
            weights = np.bitwise_count(words ^ self._looks[query.path]).sum(axis=1)
        else:  # its image could not be decoded, which has been reported
            return iter(())
        return iter(np.argsort(weights, kind="stable").tolist())

    def _weigh(self, candidates: list[Sample]) -> Words:
        """Return what a query is weighed against: of each candidate a 64-bit key, or its perceptual hash."""
        import numpy as np

        if self._policy == "nearest":
            return np.stack([self._looks[candidate.path] for candidate in candidates])
        return np.array([draw_key(candidate.path) for candidate in candidates], dtype=np.uint64)


def _mix(values: Words) -> Words:
    """Scatter 64-bit integers (the finaliser of SplitMix64): similar ones come out unrelated."""
    import numpy as np

    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
