"""Is one model better than another on the same pairs, and how sure can one be?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from lad_reasoner.evaluation.metrics import CONFUSION_METRICS, Floats
from lad_reasoner.evaluation.outcomes import JudgedPair, System, majority, query_of
from lad_reasoner.evaluation.score import RESAMPLES, Estimate, cell_counts
from lad_reasoner.evaluation.statistics import holm, interval, mcnemar, resample_counts
from lad_reasoner.support.errors import DataError, UsageError

__all__ = ["Comparison", "compare_outcomes"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the pairs that both answered.

    Attributes:
        first: Name of A.
        second: Name of B.
        pairs: Pairs (of votes: queries) that both answered.
        accuracy: A minus B, with the interval of a paired bootstrap.
        f1: A minus B, likewise.
        only_first: Pairs that only A answers rightly.
        only_second: Pairs that only B answers rightly.
        p_value: Exact McNemar test.
        p_holm: The same, adjusted for all comparisons made together.
    """

    first: str
    second: str
    pairs: int
    accuracy: Estimate
    f1: Estimate
    only_first: int
    only_second: int
    p_value: float
    p_holm: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def compare_outcomes(systems: Sequence[System], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Comparison]:
    """Compare every two systems; of several samples or references a query, the majority vote counts.

    Raises:
        UsageError: Fewer than two systems.
        DataError: Two systems share no pair.
    """
    if len(systems) < 2:
        raise UsageError("lad compare", found=f"{len(systems)} file", expected="at least two files of predictions")
    votes = [majority(system) if system.votes > 1 else system for system in systems]
    rng = np.random.default_rng(seed)
    comparisons = [_compare(first, second, resamples=resamples, rng=rng) for first, second in combinations(votes, 2)]
    adjusted = holm([comparison.p_value for comparison in comparisons])
    return [replace(item, p_holm=p_value) for item, p_value in zip(comparisons, adjusted, strict=True)]


def _compare(first: System, second: System, *, resamples: int, rng: np.random.Generator) -> Comparison:
    theirs = {query_of(row.truth): row for row in second.rows}
    rows = [(row, theirs[query_of(row.truth)]) for row in first.rows if query_of(row.truth) in theirs]
    if not rows:
        raise DataError(
            f"{first.name} and {second.name}", found="no pair that both answered", expected="the same pairs"
        )
    cells = np.hstack([cell_counts([pair[side] for pair in rows]) for side in (0, 1)])
    drawn = resample_counts(cells, resamples=resamples, rng=rng)
    only_first = sum(_right(one) and not _right(other) for one, other in rows)
    only_second = sum(_right(other) and not _right(one) for one, other in rows)
    p_value = mcnemar(only_first, only_second)
    return Comparison(
        first=first.name,
        second=second.name,
        pairs=len(rows),
        accuracy=_difference("accuracy", cells, drawn),
        f1=_difference("f1", cells, drawn),
        only_first=only_first,
        only_second=only_second,
        p_value=p_value,
        p_holm=p_value,
    )


def _right(row: JudgedPair) -> bool:
    return row.replies[0].answer == row.truth.label


def _difference(metric: str, cells: Floats, drawn: Floats) -> Estimate:
    """Return the metric of the first four columns minus that of the last four."""
    function = CONFUSION_METRICS[metric]
    totals = cells.sum(axis=0)
    value = float(function(totals[:4]) - function(totals[4:]))
    low, high = interval(function(drawn[:, :4]) - function(drawn[:, 4:]))
    return Estimate(*(None if math.isnan(number) else number for number in (value, low, high)))
