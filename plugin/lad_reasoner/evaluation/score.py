"""From outcomes to scores: every metric of every category, pooled and macro, with bootstrap intervals.

``score_run`` is the entry: a file of predictions in, a ``RunScore`` out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lad_reasoner.evaluation.metrics import CONFUSION_METRICS, CURVE_METRICS, Confusion, Floats
from lad_reasoner.evaluation.outcomes import JudgedPair, Query, System, join, majority, query_of, read_replies
from lad_reasoner.evaluation.protocols import Protocol, select
from lad_reasoner.evaluation.statistics import interval, resample_aurocs, resample_counts
from lad_reasoner.inference.predictions import read_predictions, read_run_card
from lad_reasoner.pairs.reader import Truth, data_sha256, read_truths
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import ANOMALOUS, LOCO_CATEGORIES

__all__ = ["RESAMPLES", "Estimate", "GroupScore", "RunScore", "Share", "estimate", "score_outcomes", "score_run"]

RESAMPLES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number in [0, 1] and its 95% interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """How many of some anomalies (or of the normal queries) were answered rightly.

    Attributes:
        name: Kind, or category and defect.
        pairs: How many there are.
        accuracy: The share of right answers.
    """

    name: str
    pairs: int
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The scores of one category, or of all pairs pooled.

    Attributes:
        name: The category, or ``pooled``.
        pairs: How many pairs.
        anomalous: How many of them are anomalous.
        replies: How many replies: pairs times samples.
        confusion: Of the replies.
        metrics: By the names of ``CONFUSION_METRICS`` and ``CURVE_METRICS``; the latter need a score in every reply.
        unparsed: Replies without a readable answer; they count as wrong.
        template_rate: Share of replies that keep to the template; None for systems that know none.
    """

    name: str
    pairs: int
    anomalous: int
    replies: int
    confusion: Confusion
    metrics: dict[str, Estimate]
    unparsed: int
    template_rate: float | None


@dataclass(frozen=True, slots=True)
class RunScore:
    """Everything `lad score` says about one system.

    Attributes:
        name: What it is called in tables.
        protocol: Which pairs were scored.
        samples: Replies a pair.
        votes: Replies a query: samples, over all its references.
        pooled: All pairs together (micro average).
        macro: The mean over the categories; not defined if it is not in one of them.
        categories: In the paper's order, others after them by name.
        kinds: Share of right answers by kind.
        defects: Share of right answers by category and defect; a query with several defects counts for each.
        score_sources: How many scores come from where.
        missing: Pairs of the protocol that have no reply; they are not scored.
        unknown: Replies to pairs that the data does not hold.
        vote: The same for the majority vote of several samples, several references or both, a row a query.
    """

    name: str
    protocol: Protocol
    samples: int
    votes: int
    pooled: GroupScore
    macro: dict[str, Estimate]
    categories: dict[str, GroupScore]
    kinds: tuple[Share, ...]
    defects: tuple[Share, ...]
    score_sources: dict[str, int]
    missing: int
    unknown: int
    vote: RunScore | None = field(default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values."""
        return asdict(self)


def score_run(
    predictions: Path,
    data: Path | None = None,
    protocol: Protocol = "paper",
    *,
    name: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RunScore:
    """Score a file of predictions.

    Args:
        predictions: JSON lines of `lad predict`.
        data: The pair parquet; where the run card says by default.
        protocol: Which pairs are scored.
        name: What the run is called; the file's stem by default.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: A file cannot be read, the data is not what was predicted on, or no pair is left to score.
    """
    outcomes = read_outcomes(predictions, data, protocol, name=name)
    return score_outcomes(outcomes, protocol, resamples=resamples, seed=seed)


def read_outcomes(predictions: Path, data: Path | None, protocol: Protocol, *, name: str | None = None) -> System:
    """Read predictions and put them beside the truth.

    Raises:
        DataError: A file cannot be read, the data is not what was predicted on, or no pair is left to score.
    """
    read = read_predictions(predictions)
    source = data or data_of(predictions)
    if data_sha256(source) != read[0].data_sha256:
        found = f"predictions made on other data than {source}"
        remedy = "give the parquet they were made on with --data, or predict again"
        raise DataError(predictions, found=found, remedy=remedy)
    truths = read_truths(source)
    return join(name or predictions.stem, read_replies(read), scored=select(truths, protocol), known=truths)


def data_of(predictions: Path) -> Path:
    """Return where the run card says the data is.

    Raises:
        DataError: There is no run card.
    """
    card = read_run_card(predictions)
    if not isinstance(card.get("data"), str):
        raise DataError(
            predictions, found="no run card that names the data", remedy="give the pair parquet with --data"
        )
    return Path(card["data"])


def score_outcomes(outcomes: System, protocol: Protocol, *, resamples: int = RESAMPLES, seed: int = 0) -> RunScore:
    """Score what a system said.

    Raises:
        DataError: There is nothing to score.
    """
    rows = outcomes.rows
    if not rows:
        raise DataError(
            outcomes.name, found=f"no reply to any pair of the protocol {protocol}", expected="at least one"
        )
    rng = np.random.default_rng(seed)
    scored = [_score_group("pooled", rows, resamples=resamples, rng=rng)]
    by_category = _group(rows, lambda truth: [truth.category])
    scored += [_score_group(name, by_category[name], resamples=resamples, rng=rng) for name in _ordered(by_category)]
    vote, votes = None, outcomes.votes
    if votes > 1:
        vote = score_outcomes(majority(outcomes), protocol, resamples=resamples, seed=seed)
    return RunScore(
        name=outcomes.name,
        protocol=protocol,
        samples=outcomes.samples,
        votes=votes,
        pooled=scored[0].score,
        macro=_macro(scored[1:]),
        categories={group.score.name: group.score for group in scored[1:]},
        kinds=_shares(rows, lambda truth: [truth.kind], resamples=resamples, rng=rng),
        defects=_shares(rows, _defects, resamples=resamples, rng=rng),
        score_sources=dict(Counter(reply.source for row in rows for reply in row.replies if reply.source)),
        missing=len(outcomes.missing),
        unknown=len(outcomes.unknown),
        vote=vote,
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """A group's scores with the bootstrap values behind its intervals, by metric."""

    score: GroupScore
    values: dict[str, Floats]


def _score_group(name: str, rows: Sequence[JudgedPair], *, resamples: int, rng: np.random.Generator) -> _Scored:
    cells = cell_counts(rows)
    totals = cells.sum(axis=0)
    drawn = resample_counts(cells, resamples=resamples, rng=rng)
    values = {metric: function(drawn) for metric, function in CONFUSION_METRICS.items()}
    metrics = {
        metric: estimate(float(function(totals)), values[metric]) for metric, function in CONFUSION_METRICS.items()
    }
    curve, aurocs = _score_curve(rows, resamples=resamples, rng=rng)
    replies = [reply for row in rows for reply in row.replies]
    forms = [reply.well_formed for reply in replies if reply.well_formed is not None]
    score = GroupScore(
        name=name,
        pairs=len(rows),
        anomalous=sum(row.truth.label == ANOMALOUS for row in rows),
        replies=len(replies),
        confusion=Confusion(*totals.astype(int).tolist()),
        metrics=metrics | curve,
        unparsed=sum(reply.answer is None for reply in replies),
        template_rate=sum(forms) / len(forms) if forms else None,
    )
    return _Scored(score, values | {"auroc": aurocs})


def _score_curve(
    rows: Sequence[JudgedPair], *, resamples: int, rng: np.random.Generator
) -> tuple[dict[str, Estimate], Floats]:
    """Return the metrics that need a score, and the bootstrap values of the AUROC; n/a if any score is missing."""
    drawn = np.full(resamples, np.nan)
    scores = np.array([reply.score for row in rows for reply in row.replies], dtype=np.float64)  # None becomes NaN
    if np.isnan(scores).any():
        return dict.fromkeys(CURVE_METRICS, Estimate(None)), drawn
    anomalous = np.array([row.truth.label == ANOMALOUS for row in rows for _ in row.replies])
    estimates = {metric: estimate(function(anomalous, scores)) for metric, function in CURVE_METRICS.items()}
    if (area := estimates["auroc"].value) is not None:
        clusters = np.repeat(_clusters(rows), [len(row.replies) for row in rows])
        drawn = resample_aurocs(anomalous, scores, clusters, resamples=resamples, rng=rng)
        estimates["auroc"] = estimate(area, drawn)
    return estimates, drawn


def cell_counts(rows: Sequence[JudgedPair]) -> Floats:
    """Return ``(queries, 4)``: the tp, fp, tn, fn of all that was asked about each query.

    References and samples of one query are not independent, so they are drawn together.
    """
    clusters = _clusters(rows)
    counts = np.zeros((int(clusters.max()) + 1, 4))
    for cluster, row in zip(clusters, rows, strict=True):
        anomalous = row.truth.label == ANOMALOUS
        for reply in row.replies:
            right = reply.answer == row.truth.label
            counts[cluster, (0 if right else 3) if anomalous else (2 if right else 1)] += 1
    return counts


def _clusters(rows: Sequence[JudgedPair]) -> NDArray[np.int64]:
    """Return the index of each row's query."""
    numbers: dict[Query, int] = {}
    return np.array([numbers.setdefault(query_of(row.truth), len(numbers)) for row in rows])


def _macro(groups: Sequence[_Scored]) -> dict[str, Estimate]:
    """Return the mean over categories; their resamples are independent, so their mean is a resample of the mean."""
    macro = {}
    for metric in groups[0].score.metrics:
        values = [group.score.metrics[metric].value for group in groups]
        mean = math.nan if None in values else float(np.mean([value for value in values if value is not None]))
        drawn = [group.values[metric] for group in groups if metric in group.values]
        macro[metric] = estimate(mean, np.mean(drawn, axis=0) if drawn else None)
    return macro


def _shares(
    rows: Sequence[JudgedPair],
    names: Callable[[Truth], Iterable[str]],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[Share, ...]:
    shares = []
    for name, group in sorted(_group(rows, names).items()):
        cells = cell_counts(group)
        accuracy = CONFUSION_METRICS["accuracy"]
        drawn = accuracy(resample_counts(cells, resamples=resamples, rng=rng))
        shares.append(Share(name, len(group), estimate(float(accuracy(cells.sum(axis=0))), drawn)))
    return tuple(shares)


def _defects(truth: Truth) -> list[str]:
    return [f"{truth.category}/{defect}" for defect in truth.defect.split("+")] if truth.label == ANOMALOUS else []


def _group(rows: Sequence[JudgedPair], names: Callable[[Truth], Iterable[str]]) -> dict[str, list[JudgedPair]]:
    groups: dict[str, list[JudgedPair]] = defaultdict(list)
    for row in rows:
        for name in names(row.truth):
            groups[name].append(row)
    return dict(groups)


def _ordered(categories: Iterable[str]) -> list[str]:
    """Return the paper's categories in the order of its table, then the others by name."""
    order = list(LOCO_CATEGORIES)
    return sorted(categories, key=lambda name: (order.index(name) if name in order else len(order), name))


def estimate(value: float, drawn: Floats | None = None) -> Estimate:
    """Return a value, NaN where not defined, with the interval of its bootstrap values ``(resamples,)``."""
    low, high = (math.nan, math.nan) if drawn is None or math.isnan(value) else interval(drawn)
    return Estimate(*(None if math.isnan(number) else number for number in (value, low, high)))
