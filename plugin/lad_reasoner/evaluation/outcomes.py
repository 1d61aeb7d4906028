"""What was said about each pair, beside what is true: the one form in which every system is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lad_reasoner.inference.predictions import Prediction
from lad_reasoner.pairs.reader import Truth
from lad_reasoner.support.errors import UsageError
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import ANOMALOUS, NORMAL, Label

__all__ = ["JudgedPair", "Query", "System", "Verdict", "join", "majority", "query_of", "read_replies", "run_names"]


#: What a query is known by: its dataset and its path.
Query = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One reading of a system's output.

    Attributes:
        answer: "yes", "no", or None where none could be read.
        well_formed: Whether the template was kept; None for systems that know no template.
        score: The higher, the more anomalous; None if there is none.
        source: Where the score comes from.
    """

    answer: Label | None
    well_formed: bool | None = None
    score: float | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A pair and the replies to it, one a sample."""

    truth: Truth
    replies: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class System:
    """What a system said about the pairs of a protocol.

    Attributes:
        name: What the system is called in tables.
        rows: One a pair that has a reply.
        missing: Ids of pairs without one: not scored, but counted and shown.
        unknown: Ids that were replied to and are not in the data at all.
    """

    name: str
    rows: tuple[JudgedPair, ...]
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """The most replies any pair has."""
        return max((len(row.replies) for row in self.rows), default=0)

    @property
    def votes(self) -> int:
        """The most replies any query has: its samples, over all the references it is compared to."""
        counts: Counter[Query] = Counter()
        for row in self.rows:
            counts[query_of(row.truth)] += len(row.replies)
        return max(counts.values(), default=0)


def read_replies(predictions: Sequence[Prediction]) -> dict[str, tuple[Verdict, ...]]:
    """Parse responses; the replies of a pair are in the order of their samples."""
    replies: dict[str, tuple[Verdict, ...]] = {}
    for prediction in sorted(predictions, key=lambda prediction: prediction.sample):
        response = parse(prediction.response)
        reply = Verdict(response.answer, response.well_formed, prediction.score, prediction.score_source)
        replies[prediction.pair_id] = (*replies.get(prediction.pair_id, ()), reply)
    return replies


def join(
    name: str, replies: Mapping[str, tuple[Verdict, ...]], *, scored: Sequence[Truth], known: Sequence[Truth]
) -> System:
    """Put replies beside the truth.

    Args:
        name: What the system is called in tables.
        replies: By pair_id.
        scored: The pairs that the protocol scores.
        known: Every pair of the data.
    """
    ids = {truth.pair_id for truth in known}
    return System(
        name=name,
        rows=tuple(JudgedPair(truth, replies[truth.pair_id]) for truth in scored if truth.pair_id in replies),
        missing=tuple(truth.pair_id for truth in scored if truth.pair_id not in replies),
        unknown=tuple(pair_id for pair_id in replies if pair_id not in ids),
    )


def query_of(truth: Truth) -> Query:
    """Return what pairs with other references for the same query share."""
    return truth.dataset, truth.query_path


def majority(outcomes: System, *, by: Literal["query", "pair"] = "query") -> System:
    """Return the outcomes of a vote: of the readable answers the more frequent one; a tie is no answer.

    The score is the share of yes among the readable answers, and 0.5 where there is none.

    Args:
        outcomes: With several samples a pair, several references a query, or both.
        by: Whether all that was asked about a query votes together, under the id of its first pair, or each pair's
            samples by themselves.
    """
    voters: dict[object, list[JudgedPair]] = {}
    for row in outcomes.rows:
        voters.setdefault(query_of(row.truth) if by == "query" else row.truth.pair_id, []).append(row)
    rows = tuple(
        replace(group[0], replies=(_vote([reply for row in group for reply in row.replies]),))
        for group in voters.values()
    )
    count = outcomes.votes if by == "query" else outcomes.samples
    return replace(outcomes, name=f"{outcomes.name} (vote of {count})", rows=rows)


def _vote(replies: Sequence[Verdict]) -> Verdict:
    votes = Counter(reply.answer for reply in replies)
    yes, no = votes[ANOMALOUS], votes[NORMAL]
    answer: Label | None = None if yes == no else (ANOMALOUS if yes > no else NORMAL)
    return Verdict(answer, score=yes / (yes + no) if yes + no else 0.5, source="vote")


def run_names(predictions: Sequence[Path]) -> list[str]:
    """Return what runs are called: the files' stems, with the folder's name before them where stems repeat.

    Raises:
        UsageError: A file is given twice.
    """
    if not predictions:
        return []
    resolved = [path.resolve() for path in predictions]
    path, times = Counter(resolved).most_common(1)[0]
    if times > 1:
        raise UsageError(path, found=f"the same file {times} times", expected="each run once")
    stems = Counter(path.stem for path in resolved)
    names = [path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}" for path in resolved]
    # Folders of one name as well: nothing but the whole path tells them apart.
    return names if len(set(names)) == len(names) else [str(path) for path in resolved]
