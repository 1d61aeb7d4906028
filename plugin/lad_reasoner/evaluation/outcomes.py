"""What a system answers about each pair, next to the truth: the one form in which every system is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lad_reasoner.inference.predictions import Prediction, read_predictions, read_run_card
from lad_reasoner.pairs.frames import SEEN_PIXELS, Frame
from lad_reasoner.pairs.reader import Truth
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.classes import read_response
from lad_reasoner.task.gold import CLASSES
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import ANOMALOUS, NORMAL, Label

__all__ = [
    "JudgedPair",
    "Query",
    "ScoredReply",
    "System",
    "add_again",
    "constant",
    "frame_of",
    "join",
    "majority",
    "query_of",
    "read_replies",
    "run_names",
]

#: What identifies a query: its dataset and its path.
Query = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ScoredReply:
    """One reply of a system, as it was read.

    Attributes:
        answer: "yes", "no", or None if the reply is unparsed.
        well_formed: Whether the reply keeps to the template; None for systems without a template.
        score: Higher means more anomalous; None if there is no score.
        tokens: Length of the reply; None if unknown.
        cut: Whether the reply was cut off at the token limit; None if unknown.
        response: The whole reply; empty for systems that write none.
        again: The answer to the question asked again with the reply's own words alone: empty if unparsed, None if it
            was not asked.
        tied: Whether the verdict is a vote with as many yes as no.
    """

    answer: Label | None
    well_formed: bool | None = None
    score: float | None = None
    source: str | None = None
    tokens: int | None = None
    cut: bool | None = None
    reasoning: str = ""
    response: str = ""
    again: str | None = None
    tied: bool = False


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A pair and the replies to it, one per sample."""

    truth: Truth
    replies: tuple[ScoredReply, ...]

    @property
    def right(self) -> bool:
        """Whether the first reply is right. An unparsed reply is wrong."""
        return self.replies[0].answer == self.truth.label


@dataclass(frozen=True, slots=True)
class System:
    """The replies of one system to the pairs of a protocol.

    Attributes:
        rows: One for each pair with a reply.
        missing: Ids of pairs without a reply: reported, not scored.
        unknown: Ids with a reply that the data does not hold.
        frame: In which its replies state boxes.
        notes: Sentences that the user must see, such as how a threshold was chosen.
    """

    name: str
    rows: tuple[JudgedPair, ...]
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    frame: Frame = SEEN_PIXELS

    @property
    def samples(self) -> int:
        """The largest number of replies per pair."""
        return max((len(row.replies) for row in self.rows), default=0)

    @property
    def votes(self) -> int:
        """The largest number of replies per query: its samples, over all its references."""
        counts: Counter[Query] = Counter()
        for row in self.rows:
            counts[query_of(row.truth)] += len(row.replies)
        return max(counts.values(), default=0)


def read_replies(predictions: Sequence[Prediction]) -> dict[str, tuple[ScoredReply, ...]]:
    """Parse responses; the replies to a pair are in the order of their samples."""
    replies: dict[str, tuple[ScoredReply, ...]] = {}
    for line in sorted(predictions, key=lambda prediction: prediction.sample):
        response = parse(line.response)
        reply = ScoredReply(
            response.answer,
            response.well_formed,
            line.score,
            line.score_source,
            tokens=line.response_tokens,
            cut=line.finish_reason == "length",
            reasoning=response.reasoning,
            response=line.response,
        )
        replies[line.pair_id] = (*replies.get(line.pair_id, ()), reply)
    return replies


def frame_of(predictions: Sequence[Prediction]) -> Frame:
    """Return the frame in which a run's replies state boxes."""
    sampling = predictions[0].sampling
    return Frame.of_model(predictions[0].model, min_pixels=sampling.min_pixels, max_pixels=sampling.max_pixels)


def join(
    name: str,
    replies: Mapping[str, tuple[ScoredReply, ...]],
    *,
    scored: Sequence[Truth],
    known: Sequence[Truth],
    frame: Frame = SEEN_PIXELS,
) -> System:
    """Join replies, by pair_id, with the pairs that the protocol scores; ``known`` is every pair of the data."""
    ids = {truth.pair_id for truth in known}
    return System(
        name=name,
        rows=tuple(_judge(truth, replies[truth.pair_id]) for truth in scored if truth.pair_id in replies),
        missing=tuple(truth.pair_id for truth in scored if truth.pair_id not in replies),
        unknown=tuple(pair_id for pair_id in replies if pair_id not in ids),
        frame=frame,
    )


def _judge(truth: Truth, replies: tuple[ScoredReply, ...]) -> JudgedPair:
    """Join replies with a truth, which tells in what form they answer."""
    if truth.gold.answers == CLASSES:
        replies = tuple(replace(reply, answer=read_response(reply.response, truth.gold).answer) for reply in replies)
    return JudgedPair(truth, replies)


def add_again(system: System, predictions: Path, path: Path) -> System:
    """Return the system of ``predictions`` with the answers in ``path``, for which its questions were asked again.

    Raises:
        DataError: A file cannot be read, or was not made from these replies by `lad predict --without-images`.
    """
    card = read_run_card(path)
    if "reasoning_of" not in card:
        raise DataError("these predictions were not made with lad predict --without-images", where=path)
    if card.get("reasoning_run") != read_predictions(predictions)[0].digest:
        problem = f"these replies were asked again from {card['reasoning_of']}, another run than {predictions}"
        raise DataError(problem, where=path, remedy="Give --again in the order of the predictions")
    golds = {row.truth.pair_id: row.truth.gold for row in system.rows}
    answers = {
        (line.pair_id, line.sample): read_response(line.response, golds[line.pair_id]).answer or ""
        for line in read_predictions(path)
        if line.pair_id in golds
    }
    rows = []
    for row in system.rows:
        keys = [(row.truth.pair_id, sample) for sample in range(len(row.replies))]
        replies = (replace(reply, again=answers.get(key)) for reply, key in zip(row.replies, keys, strict=True))
        rows.append(replace(row, replies=tuple(replies)))
    return replace(system, rows=tuple(rows))


def constant(answer: Label, truths: Sequence[Truth]) -> System:
    """Return the system that gives one answer to every query: what chance alone reaches."""
    return System(f"always {answer}", tuple(JudgedPair(truth, (ScoredReply(answer),)) for truth in truths))


def query_of(truth: Truth) -> Query:
    """Return what pairs with different references for the same query share."""
    return truth.dataset, truth.query_path


def majority(system: System, *, by: Literal["query", "pair"] = "query") -> System:
    """Return the votes of a system: the more frequent of the readable answers.

    The mean P(yes) of the replies breaks a tie where every reply has a probability; otherwise the first readable reply
    does. The vote's score is that mean, or the share of yes among the readable answers where a score is missing (0.5
    if no answer is readable).

    All replies about a query vote together, under the id of its first pair, or each pair's samples separately.
    """
    voters: dict[object, list[JudgedPair]] = {}
    for row in system.rows:
        voters.setdefault(query_of(row.truth) if by == "query" else row.truth.pair_id, []).append(row)
    rows = tuple(
        replace(group[0], replies=(_vote([reply for row in group for reply in row.replies]),))
        for group in voters.values()
    )
    count = system.votes if by == "query" else system.samples
    return replace(system, name=f"{system.name} (vote of {count})", rows=rows)


def _vote(replies: Sequence[ScoredReply]) -> ScoredReply:
    if len(replies) == 1:
        return replies[0]
    answers = [reply.answer for reply in replies if reply.answer is not None]
    yes = answers.count(ANOMALOUS)
    scores = [reply.score for reply in replies if reply.score is not None]
    mean = sum(scores) / len(scores) if len(scores) == len(replies) else None
    tied = bool(answers) and 2 * yes == len(answers)
    answer: Label | None = None
    if tied:
        decided = mean is not None and mean != 0.5 and all(0 <= score <= 1 for score in scores)
        answer = (ANOMALOUS if mean > 0.5 else NORMAL) if decided and mean is not None else answers[0]
    elif answers:
        answer = ANOMALOUS if 2 * yes > len(answers) else NORMAL
    if mean is not None:
        return ScoredReply(answer, score=mean, source="mean P(yes)", tied=tied)
    return ScoredReply(answer, score=yes / len(answers) if answers else 0.5, source="vote", tied=tied)


def run_names(predictions: Sequence[Path]) -> list[str]:
    """Return the names of runs: the files' stems, with the folder's name in front where stems repeat.

    Raises:
        UsageError: A file is given twice.
    """
    if not predictions:
        return []
    resolved = [path.resolve() for path in predictions]
    path, times = Counter(resolved).most_common(1)[0]
    if times > 1:
        raise UsageError(f"the file is given {times} times", where=path, remedy="Name each run once")
    stems = Counter(path.stem for path in resolved)
    names = [path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}" for path in resolved]
    # Folders may share a name as well. Then only the whole path tells them apart.
    return names if len(set(names)) == len(names) else [str(path) for path in resolved]
