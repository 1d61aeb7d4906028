"""The result in two sentences: which model is right most often, and whether its lead is more than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from lad_reasoner.evaluation.compare import Comparison
from lad_reasoner.evaluation.score import RunScore
from lad_reasoner.evaluation.statistics import Estimate
from lad_reasoner.support.percent import percent, points
from lad_reasoner.task.task import ANOMALOUS, NORMAL, Label

__all__ = ["Headline", "read_headline", "warn_of_replies"]

#: A lead is clear below this p value after Holm's correction: the 95% of the intervals next to it.
_LEVEL: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What a reader wants to know first.

    Attributes:
        best: The run that is right most often; the first of equals.
        accuracy: Its pooled accuracy (of the vote, where it has several replies per query).
        constant: The one answer to every pair that is right most often.
        baseline: How often that answer is right, from 0 to 1.
        second: The run that follows; None for a single run.
        lead: Accuracy of ``best`` minus that of ``second``, on the pairs that both answered.
        p_value: Of that difference, after Holm's correction over all comparisons.
    """

    best: str
    accuracy: Estimate
    pairs: int
    yes_share: Estimate
    constant: Label
    baseline: float
    second: str | None = None
    lead: Estimate | None = None
    p_value: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the lead is more than chance."""
        return self.p_value is not None and self.p_value < _LEVEL

    def sentences(self) -> tuple[str, str]:
        """Return the result in two sentences."""
        most = "most often, " if self.second else ""
        count = f"{self.pairs:,} pair{'' if self.pairs == 1 else 's'}"
        share = f"{percent(self.accuracy.value)}% of {count}{_range(self.accuracy, percent)}"
        baseline = f"always answering {self.constant} would be right on {percent(self.baseline)}%"
        first = f"{self.best} is right {most}on {share}; {baseline}."
        if self.second is None or self.lead is None or self.p_value is None:
            return first, f"It answers yes to {percent(self.yes_share.value)}% of them."
        if self.lead.value == 0:
            return first, f"On the pairs that both answered, {self.second} is right as often."
        verdict = "a clear difference" if self.clear else "which chance alone could explain"
        lead = f"{points(self.lead.value).removeprefix('+')} points{_range(self.lead, points)}"
        return first, f"It leads {self.second} by {lead}, {verdict} (p = {self.p_value:.2g})."


def _range(estimate: Estimate, show: Callable[[float | None], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f" ({show(estimate.low)} to {show(estimate.high)})"


def read_headline(runs: Sequence[RunScore], comparisons: Sequence[Comparison]) -> Headline:
    """Return the result of runs.

    Args:
        runs: At least one.
        comparisons: Of every two of them, in the order of `itertools.combinations`.
    """
    scores = [run.vote or run for run in runs]
    order = sorted(range(len(scores)), key=lambda place: -(scores[place].pooled.metrics["accuracy"].value or 0.0))
    best = scores[order[0]].pooled
    share = best.anomalous / best.pairs
    headline = Headline(
        best=runs[order[0]].name,
        accuracy=best.metrics["accuracy"],
        pairs=best.pairs,
        yes_share=best.yes_share,
        constant=ANOMALOUS if share > 0.5 else NORMAL,
        baseline=max(share, 1 - share),
    )
    if len(order) == 1:
        return headline
    comparison, lead = _lead(comparisons, len(scores), order[0], order[1])
    return replace(headline, second=runs[order[1]].name, lead=lead, p_value=comparison.p_holm)


def _lead(comparisons: Sequence[Comparison], runs: int, best: int, second: int) -> tuple[Comparison, Estimate]:
    """Return the comparison of two runs, and its difference as seen from the better one."""
    places = dict(zip(combinations(range(runs), 2), comparisons, strict=True))
    if best < second:
        return places[best, second], places[best, second].accuracy
    turned = places[second, best].accuracy
    value, low, high = (None if bound is None else -bound for bound in (turned.value, turned.high, turned.low))
    return places[second, best], Estimate(value, low, high)


def describe_ties(run: RunScore) -> str:
    """Return how many votes of a run are ties, as a sentence; empty if none is, or if nothing was voted on."""
    if run.vote is None or not (ties := run.vote.pooled.ties):
        return ""
    votes = f"{ties} of {run.vote.pooled.pairs} votes {'is a tie' if ties == 1 else 'are ties'}"
    return f"{run.name}: {votes}, decided by the mean P(yes), or by the first reply where a score is missing."


def warn_of_replies(run: RunScore) -> list[str]:
    """Return a sentence for each reason why most replies of a run cannot be judged, with what to change."""
    pooled, warnings = run.pooled, []
    if pooled.cut_share is not None and pooled.cut_share > 0.5:
        warnings.append(
            f"{percent(pooled.cut_share)}% of the replies of {run.name} are cut off at the token limit. "
            "Predict again with a larger --max-new-tokens."
        )
    if 2 * pooled.unparsed > pooled.replies:
        warnings.append(
            f"{percent(pooled.unparsed / pooled.replies)}% of the replies of {run.name} have no readable answer and "
            "count as wrong. Use the format prompt of training, or predict with --structured."
        )
    return warnings
