"""How hard each pair is for a model, from several sampled answers: what `lad filter` keeps, pass@k and majority@k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from lad_reasoner.evaluation.outcomes import System
from lad_reasoner.support.errors import DataError, UsageError

__all__ = ["PairDifficulty", "majority_at", "mixed_pairs", "pass_at", "read_difficulty"]


@dataclass(frozen=True, slots=True)
class PairDifficulty:
    """The sampled answers to one pair.

    Attributes:
        unparsed: Replies without a readable answer; they earn nothing, like wrong ones.
    """

    pair_id: str
    label: str
    right: int
    wrong: int
    unparsed: int

    @property
    def samples(self) -> int:
        """The number of replies."""
        return self.right + self.wrong + self.unparsed

    @property
    def share(self) -> float:
        """The share of right answers."""
        return self.right / self.samples


def read_difficulty(system: System) -> list[PairDifficulty]:
    """Count the answers to each pair.

    Raises:
        DataError: No pair has several replies.
    """
    found = []
    for row in system.rows:
        right = sum(reply.answer == row.truth.label for reply in row.replies)
        unparsed = sum(reply.answer is None for reply in row.replies)
        wrong = len(row.replies) - right - unparsed
        found.append(PairDifficulty(row.truth.pair_id, row.truth.label, right, wrong, unparsed))
    if not any(pair.samples > 1 for pair in found):
        remedy = "Sample several answers per pair with lad predict --samples 8"
        raise DataError("no pair has several replies", where=system.name, remedy=remedy)
    return found


def mixed_pairs(
    pairs: Sequence[PairDifficulty], *, min_share: float | None = None, max_share: float | None = None
) -> list[PairDifficulty]:
    """Return the pairs whose answers are mixed: GRPO's advantage is zero where all rewards of a group are equal.

    Args:
        pairs: As `read_difficulty` returns them.
        min_share: The smallest share of right answers, inclusive; by default at least one answer is right.
        max_share: The largest share, inclusive; by default at least one answer is not right.

    Raises:
        UsageError: The bounds cross.
    """
    if min_share is not None and max_share is not None and min_share > max_share:
        raise UsageError(f"--min-share {min_share:g} is larger than --max-share {max_share:g}")
    return [
        pair
        for pair in pairs
        if (pair.right > 0 if min_share is None else pair.share >= min_share)
        and (pair.right < pair.samples if max_share is None else pair.share <= max_share)
    ]


def pass_at(pairs: Sequence[PairDifficulty], k: int) -> float | None:
    """Return pass@k: the chance that one of k answers is right, estimated without bias from all samples.

    One minus the share of the choices of k among n samples without a right one (Chen et al., arXiv 2107.03374). Pairs
    with fewer than k samples are left out; None if no pair has k.
    """
    values = [1 - comb(pair.samples - pair.right, k) / comb(pair.samples, k) for pair in pairs if pair.samples >= k]
    return sum(values) / len(values) if values else None


def majority_at(pairs: Sequence[PairDifficulty], k: int) -> float | None:
    """Return majority@k: the chance that the vote of k answers is right; the first reply breaks a tie, which is fair.

    Exact over all choices of k among the samples. Pairs with fewer than k samples are left out; None if no pair has k.
    """
    values = [_majority(pair, k) for pair in pairs if pair.samples >= k]
    return sum(values) / len(values) if values else None


def _majority(pair: PairDifficulty, k: int) -> float:
    chance = 0.0
    for right in range(1, k + 1):
        for wrong in range(min(right, k - right) + 1):
            ways = comb(pair.right, right) * comb(pair.wrong, wrong) * comb(pair.unparsed, k - right - wrong)
            chance += ways * (0.5 if right == wrong else 1.0)
    return chance / comb(pair.samples, k)
