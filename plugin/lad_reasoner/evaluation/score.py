"""From replies to scores: every metric per category, pooled and macro, with 95% intervals.

`score_run` is the entry: a file of predictions in, a `RunScore` out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lad_reasoner.evaluation.metrics import CURVE_METRICS, curve_metrics
from lad_reasoner.evaluation.outcomes import (
    JudgedPair,
    Query,
    System,
    frame_of,
    join,
    majority,
    query_of,
    read_replies,
)
from lad_reasoner.evaluation.protocols import Protocol, select
from lad_reasoner.evaluation.statistics import RESAMPLES, Bootstrap, Estimate, Unanimous, estimate
from lad_reasoner.inference.predictions import read_predictions, read_run_card
from lad_reasoner.pairs.reader import Truth, data_sha256, parquet_files, read_truths
from lad_reasoner.support.confusion import CONFUSION_METRICS, Confusion, Floats, mcc
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.files import unchanged
from lad_reasoner.task.task import ANOMALOUS, LOCO_CATEGORIES

__all__ = ["GroupScore", "RunScore", "Share", "score_run", "score_system"]


@dataclass(frozen=True, slots=True)
class Share:
    """The share of right answers to the queries of one kind, or of one category and defect."""

    name: str
    pairs: int
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The scores of one category, or of all pairs pooled.

    Attributes:
        name: The category, or ``pooled``.
        replies: The number of replies: pairs times samples.
        confusion: Of the replies.
        metrics: By the names of ``CONFUSION_METRICS`` and ``CURVE_METRICS``; the latter need a score in every reply.
        unparsed: Replies without a readable answer; they count as wrong.
        template_rate: Share of replies that keep to the template; None for systems without a template.
        tokens: Mean length of a reply in tokens; None if a length is unknown.
        cut_share: Share of replies that were cut off at the token limit; None if unknown.
        ties: Votes with as many yes as no.
    """

    name: str
    pairs: int
    anomalous: int
    replies: int
    confusion: Confusion
    metrics: dict[str, Estimate]
    unparsed: int
    template_rate: float | None
    yes_share: Estimate
    tokens: float | None
    cut_share: float | None
    ties: int


@dataclass(frozen=True, slots=True)
class RunScore:
    """All scores of one system.

    Attributes:
        samples: Replies per pair.
        votes: Replies per query: samples, over all its references.
        pooled: All pairs together (micro average).
        macro: The mean over the categories; not defined if it is undefined in one of them.
        categories: In the paper's order, then others by name.
        kinds: Share of right answers by kind.
        defects: Share of right answers by category and defect; a query with several defects counts for each.
        score_sources: The number of scores by source.
        missing: Pairs of the protocol without a reply; they are not scored.
        unknown: Replies to pairs that the data does not hold.
        vote: The scores of the majority vote over several samples, several references or both, one row per query.
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
    vote: RunScore | None = None

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
        data: The pair parquet; the one that the run card names by default.
        protocol: Which pairs are scored.
        name: The run's name; the file's stem by default.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: A file cannot be read, the data is not what was predicted on, or no pair is left to score.
    """
    system = read_system(predictions, data, protocol, name=name)
    return score_system(system, protocol, resamples=resamples, seed=seed)


def read_system(predictions: Path, data: Path | None, protocol: Protocol, *, name: str | None = None) -> System:
    """Read predictions and join them with the truth.

    Raises:
        DataError: A file cannot be read, or the data is not the data that was predicted on.
    """
    read = read_predictions(predictions)
    source = data or data_of(predictions)
    with unchanged(lambda: parquet_files(source)):
        if data_sha256(source) != read[0].data_sha256:
            remedy = "Give the parquet they were made on with --data, or predict again"
            raise DataError(f"predictions made on other data than {source}", where=predictions, remedy=remedy)
        truths = read_truths(source)
    scored = select(truths, protocol)
    return join(name or predictions.stem, read_replies(read), scored=scored, known=truths, frame=frame_of(read))


def data_of(predictions: Path) -> Path:
    """Return the data file that the run card names.

    Raises:
        DataError: There is no run card.
    """
    card = read_run_card(predictions)
    if not isinstance(card.get("data"), str):
        remedy = "Give the pair parquet with --data"
        raise DataError("there is no run card that names the data", where=predictions, remedy=remedy)
    return Path(card["data"])


def score_system(system: System, protocol: Protocol, *, resamples: int = RESAMPLES, seed: int = 0) -> RunScore:
    """Score the replies of a system; ``protocol`` names the protocol that chose the pairs.

    Raises:
        DataError: There is nothing to score.
    """
    rows = system.rows
    if not rows:
        raise DataError(f"there is no reply to any pair of the protocol {protocol}", where=system.name)
    bootstrap = Bootstrap(resamples, seed)
    scored = [_score_group("pooled", rows, bootstrap)]
    by_category = _group(rows, lambda truth: [truth.category])
    scored += [_score_group(name, by_category[name], bootstrap) for name in _ordered(by_category)]
    votes = system.votes
    return RunScore(
        name=system.name,
        protocol=protocol,
        samples=system.samples,
        votes=votes,
        pooled=scored[0],
        macro=_macro(scored[1:]),
        categories={group.name: group for group in scored[1:]},
        kinds=_shares(rows, lambda truth: [truth.kind], bootstrap),
        defects=_shares(rows, _defects, bootstrap),
        score_sources=dict(Counter(reply.source for row in rows for reply in row.replies if reply.source)),
        missing=len(system.missing),
        unknown=len(system.unknown),
        vote=score_system(majority(system), protocol, resamples=resamples, seed=seed) if votes > 1 else None,
    )


def _score_group(name: str, rows: Sequence[JudgedPair], bootstrap: Bootstrap) -> GroupScore:
    cells = cell_counts(rows)
    totals = cells.sum(axis=0)
    values = {metric: float(function(totals)) for metric, function in CONFUSION_METRICS.items()}
    drawn: dict[str, Floats] = {}
    if bootstrap.resamples:
        counts = bootstrap.counts(cells)
        drawn = {metric: function(counts) for metric, function in CONFUSION_METRICS.items()}
    curve_values, curve_drawn = _score_curves(rows, bootstrap)
    values, drawn = values | curve_values, drawn | curve_drawn
    metrics = {metric: estimate(value, drawn.get(metric)) for metric, value in values.items()}
    if bootstrap.resamples:
        for metric, unanimous in _unanimous(cells, values, drawn).items():
            metrics[metric] = unanimous.estimate()
    replies = [reply for row in rows for reply in row.replies]
    yes = np.column_stack([cells[:, 0] + cells[:, 1] - cells[:, 5], cells[:, :4].sum(axis=1)])
    return GroupScore(
        name=name,
        pairs=len(rows),
        anomalous=sum(row.truth.label == ANOMALOUS for row in rows),
        replies=len(replies),
        confusion=Confusion(*totals[:4].astype(int).tolist()),
        metrics=metrics,
        unparsed=sum(reply.answer is None for reply in replies),
        template_rate=_mean([reply.well_formed for reply in replies if reply.well_formed is not None]),
        yes_share=bootstrap.proportion(yes),
        tokens=_mean([reply.tokens for reply in replies], complete=True),
        cut_share=_mean([reply.cut for reply in replies], complete=True),
        ties=sum(reply.tied for reply in replies),
    )


def _mean(values: Sequence[float | None], *, complete: bool = False) -> float | None:
    """Return the mean of the known values; None without any, or where ``complete`` and one is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and not (complete and len(known) < len(values)) else None


def _score_curves(rows: Sequence[JudgedPair], bootstrap: Bootstrap) -> tuple[dict[str, float], dict[str, Floats]]:
    """Return the metrics that need a score and their bootstrap values; NaN and none if any score is missing."""
    scores = np.array([reply.score for row in rows for reply in row.replies], dtype=np.float64)  # None becomes NaN
    if np.isnan(scores).any():
        return dict.fromkeys(CURVE_METRICS, math.nan), {}
    anomalous = np.array([row.truth.label == ANOMALOUS for row in rows for _ in row.replies])
    values = curve_metrics(anomalous, scores)
    if not bootstrap.resamples:
        return values, {}
    clusters = np.repeat(_clusters(rows), [len(row.replies) for row in rows])
    return values, bootstrap.curves(anomalous, scores, clusters)


def _unanimous(cells: Floats, values: dict[str, float], drawn: dict[str, Floats]) -> dict[str, Unanimous]:
    """Return the metrics that the data show only as all right or all wrong, so that a bootstrap has no spread.

    Trials are queries, since replies to one query are not independent. F1 = 2J / (1 + J) follows from the share J of
    the queries that are anomalous or called so. For the means over both classes and for the metrics of scores, trials
    are independent pairs of an anomalous and a normal query, of which there are as many as queries of the rarer class
    (balanced accuracy b: all right has a chance of at most b to the power of twice that number).
    """
    tp, fp, tn, fn, *unparsed = (cells > 0).sum(axis=0)
    both = min(tp + fn, tn + fp)
    found = {
        metric: Unanimous(good + bad, right=not bad, shape=(lambda j: 2 * j / (1 + j)) if metric == "f1" else np.array)
        for metric, good, bad in (
            ("accuracy", tp + tn, fp + fn),
            ("f1", tp, fp + fn),
            ("precision", tp, fp),
            ("recall", tp, fn),
        )
        if good + bad and not (good and bad)
    }
    if both and "accuracy" in found:
        right, shares = found["accuracy"].right, np.array([tp + fn, tn + fp, tn + fp, tp + fn])
        found["balanced_accuracy"] = Unanimous(2 * both, right=right)
        if not any(unparsed):
            found["mcc"] = Unanimous(
                2 * both, right=right, shape=lambda s: mcc(shares * np.stack([s, 1 - s, s, 1 - s], axis=-1))
            )
    for metric in CURVE_METRICS:
        if values[metric] in {0.0, 1.0} and set(drawn[metric][~np.isnan(drawn[metric])]) <= {values[metric]}:
            trials = len(cells) if metric == "calibration_error" else both
            found[metric] = Unanimous(trials, right=values[metric] == 1.0)
    return found


def cell_counts(rows: Sequence[JudgedPair]) -> Floats:
    """Return ``(queries, 6)``: the tp, fp, tn, fn of all replies about each query, and the unparsed of fn and of fp.

    References and samples of one query are not independent, so they are resampled together.
    """
    clusters = _clusters(rows)
    counts = np.zeros((int(clusters.max()) + 1, 6))
    for cluster, row in zip(clusters, rows, strict=True):
        anomalous = row.truth.label == ANOMALOUS
        for reply in row.replies:
            right = reply.answer == row.truth.label
            counts[cluster, (0 if right else 3) if anomalous else (2 if right else 1)] += 1
            if reply.answer is None:
                counts[cluster, 4 if anomalous else 5] += 1
    return counts


def _clusters(rows: Sequence[JudgedPair]) -> NDArray[np.int64]:
    """Return the index of each row's query."""
    numbers: dict[Query, int] = {}
    return np.array([numbers.setdefault(query_of(row.truth), len(numbers)) for row in rows])


def _macro(groups: Sequence[GroupScore]) -> dict[str, Estimate]:
    """Return the mean over categories, with an interval from theirs; not defined where one category's value is not.

    The categories are independent, so the squares of the distances to their bounds add up, below and above separately
    (Zou and Donner, 2008). Unlike a bootstrap of the mean this counts categories that are all right.
    """
    macro = {}
    for metric in groups[0].metrics:
        own = [group.metrics[metric] for group in groups]
        values, lows, highs = (
            np.array([getattr(item, name) for item in own], dtype=np.float64) for name in ("value", "low", "high")
        )
        mean, count = values.mean(), len(groups)
        low = mean - np.sqrt(((values - lows) ** 2).sum()) / count
        high = mean + np.sqrt(((highs - values) ** 2).sum()) / count
        macro[metric] = Estimate(*(None if math.isnan(number) else float(number) for number in (mean, low, high)))
    return macro


def _shares(
    rows: Sequence[JudgedPair], names: Callable[[Truth], Iterable[str]], bootstrap: Bootstrap
) -> tuple[Share, ...]:
    shares = []
    for name, group in sorted(_group(rows, names).items()):
        cells = cell_counts(group)
        right = np.column_stack([cells[:, 0] + cells[:, 2], cells[:, :4].sum(axis=1)])
        shares.append(Share(name, len(group), bootstrap.proportion(right)))
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
