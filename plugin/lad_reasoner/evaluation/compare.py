"""Whether one system is better than another on the same pairs, and how certain that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from lad_reasoner.evaluation.outcomes import JudgedPair, System, constant, majority, query_of
from lad_reasoner.evaluation.score import cell_counts
from lad_reasoner.evaluation.statistics import RESAMPLES, Bootstrap, Estimate, estimate, holm, mcnemar
from lad_reasoner.support.confusion import CONFUSION_METRICS, Floats
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.task import LABELS

__all__ = ["Comparison", "compare_systems", "compare_to_constants", "match_queries"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the pairs that both answered.

    Attributes:
        pairs: Pairs (of votes: queries) that both answered.
        accuracy: A minus B, with the interval of a paired bootstrap.
        f1: A minus B, likewise.
        mcc: A minus B, likewise; not defined where one answer is constant.
        only_first: Pairs that only A answers correctly.
        only_second: Pairs that only B answers correctly.
        p_value: Exact McNemar test.
        p_holm: The same, adjusted for all comparisons made together.
    """

    first: str
    second: str
    pairs: int
    accuracy: Estimate
    f1: Estimate
    mcc: Estimate
    only_first: int
    only_second: int
    p_value: float
    p_holm: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def compare_systems(systems: Sequence[System], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Comparison]:
    """Compare every two systems; of several samples or references per query, the majority vote counts.

    Raises:
        UsageError: There are fewer than two systems.
        DataError: Two systems share no pair.
    """
    if len(systems) < 2:
        raise UsageError("a comparison needs at least two files of predictions")
    return _compare_all(combinations(_votes(systems), 2), Bootstrap(resamples, seed))


def compare_to_constants(systems: Sequence[System], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Comparison]:
    """Compare each system with always answering yes and always answering no.

    These comparisons are a family of their own in Holm's correction.
    """
    pairs = ((vote, constant(label, [row.truth for row in vote.rows])) for vote in _votes(systems) for label in LABELS)
    return _compare_all(pairs, Bootstrap(resamples, seed))


def _votes(systems: Sequence[System]) -> list[System]:
    return [majority(system) if system.votes > 1 else system for system in systems]


def _compare_all(pairs: Iterable[tuple[System, System]], bootstrap: Bootstrap) -> list[Comparison]:
    comparisons = [_compare(first, second, bootstrap) for first, second in pairs]
    adjusted = holm([comparison.p_value for comparison in comparisons])
    return [replace(item, p_holm=p_value) for item, p_value in zip(comparisons, adjusted, strict=True)]


def match_queries(first: System, second: System) -> list[tuple[JudgedPair, JudgedPair]]:
    """Return the rows about the same queries, each system with one row per query.

    Raises:
        DataError: There are none.
    """
    theirs = {query_of(row.truth): row for row in second.rows}
    rows = [(row, theirs[query_of(row.truth)]) for row in first.rows if query_of(row.truth) in theirs]
    if not rows:
        raise DataError("there is no pair that both answered", where=f"{first.name} and {second.name}")
    return rows


def _compare(first: System, second: System, bootstrap: Bootstrap) -> Comparison:
    rows = match_queries(first, second)
    cells = np.hstack([cell_counts([pair[side] for pair in rows]) for side in (0, 1)])
    drawn = bootstrap.counts(cells)
    only_first = sum(one.right and not other.right for one, other in rows)
    only_second = sum(other.right and not one.right for one, other in rows)
    p_value = mcnemar(only_first, only_second)
    differences = {metric: _difference(metric, cells, drawn) for metric in ("accuracy", "f1", "mcc")}
    return Comparison(
        first=first.name,
        second=second.name,
        pairs=len(rows),
        **differences,
        only_first=only_first,
        only_second=only_second,
        p_value=p_value,
        p_holm=p_value,
    )


def _difference(metric: str, cells: Floats, drawn: Floats) -> Estimate:
    """Return the metric of the first half of the columns minus that of the second."""
    function = CONFUSION_METRICS[metric]
    value, values = (
        function(first) - function(second)
        for first, second in (np.split(c, 2, axis=-1) for c in (cells.sum(axis=0), drawn))
    )
    return Estimate(None) if math.isnan(value) else estimate(float(value), values)
