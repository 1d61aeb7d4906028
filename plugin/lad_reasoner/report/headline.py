"""The result in two sentences: which model is right most often, and whether its lead is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from lad_reasoner.evaluation.compare import Comparison
from lad_reasoner.evaluation.score import Estimate, RunScore
from lad_reasoner.report.content import Content
from lad_reasoner.task.task import ANOMALOUS, NORMAL, Label

__all__ = ["Headline", "read_headline"]

#: A lead is called clear below it, after Holm's correction: the 95% of the intervals beside it.
_LEVEL: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What a reader wants to know first.

    Attributes:
        best: The run that is right most often; the first of equals.
        accuracy: Its pooled accuracy (of the vote, where it has several replies to a query).
        pairs: How many pairs that is of.
        constant: What to say to every pair to be right most often without looking.
        baseline: How often that is right, from 0 to 1.
        second: The run that follows; None for a single run.
        lead: Accuracy of ``best`` minus that of ``second``, on the pairs that both answered.
        p_value: Of that difference, after Holm's correction over all comparisons.
    """

    best: str
    accuracy: Estimate
    pairs: int
    constant: Label
    baseline: float
    second: str | None = None
    lead: Estimate | None = None
    p_value: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the lead is more than chance."""
        return self.p_value is not None and self.p_value < _LEVEL


def read_headline(content: Content) -> Headline:
    """Return the headline of a report."""
    scores = [run.score.vote or run.score for run in content.runs]
    order = sorted(range(len(scores)), key=lambda place: -_accuracy(scores[place]))
    best = scores[order[0]].pooled
    share = best.anomalous / best.pairs
    headline = Headline(
        best=content.runs[order[0]].name,
        accuracy=best.metrics["accuracy"],
        pairs=best.pairs,
        constant=ANOMALOUS if share > 0.5 else NORMAL,
        baseline=max(share, 1 - share),
    )
    if len(order) == 1:
        return headline
    comparison, lead = _lead(content.comparisons, len(scores), order[0], order[1])
    return replace(headline, second=content.runs[order[1]].name, lead=lead, p_value=comparison.p_holm)


def _accuracy(score: RunScore) -> float:
    return score.pooled.metrics["accuracy"].value or 0.0


def _lead(comparisons: Sequence[Comparison], runs: int, best: int, second: int) -> tuple[Comparison, Estimate]:
    """Return the comparison of two runs, and its difference as seen from the better one."""
    places = dict(zip(combinations(range(runs), 2), comparisons, strict=True))
    if best < second:
        return places[best, second], places[best, second].accuracy
    turned = places[second, best].accuracy
    value, low, high = (None if bound is None else -bound for bound in (turned.value, turned.high, turned.low))
    return places[second, best], Estimate(value, low, high)
