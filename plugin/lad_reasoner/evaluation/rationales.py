"""The reasoning, measured: does it name the violation, invent one, agree with the answer, and count correctly?

Everything is read from words by `lad_reasoner.task.violations`; docs/rationales.md defines each figure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from lad_reasoner.evaluation.outcomes import JudgedPair, Query, ScoredReply, System, query_of
from lad_reasoner.evaluation.places import anomaly_centre, check_places
from lad_reasoner.evaluation.statistics import RESAMPLES, Bootstrap, Estimate, estimate, kappa
from lad_reasoner.pairs.reader import Truth
from lad_reasoner.support.confusion import Floats
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import ANOMALOUS, NORMAL
from lad_reasoner.task.violations import (
    NUMBER_WORDS,
    PARTS,
    VIOLATIONS,
    find_assertions,
    gold_violations,
    named_violations,
)

__all__ = [
    "FIGURES",
    "Baseline",
    "DefectRationale",
    "RationaleScore",
    "compare_rationales",
    "is_wrong_reason",
    "score_rationales",
]

#: Figures of a set of replies, each a share, and the headings of tables.
FIGURES: Final = {
    "violation_recall": "violation named",
    "violation_precision": "named violations that are right",
    "object_hit": "part named",
    "hallucinated": "violation invented on a normal query",
    "consistency": "reasoning agrees with the answer",
    "counts": "stated counts that are right",
    "words_alone": "answer unchanged without images",
    "places": "stated places that are right",
    "wrong_reason": "right answer, wrong reason",
}

#: What a normal image of MVTec LOCO AD holds.
_NORMAL_COUNTS: Final = {
    "breakfast_box": {"tangerine": 2, "nectarine": 1},
    "pushpins": {"pushpin": 15},
    "screw_bag": {"long screw": 1, "short screw": 1, "nut": 2, "washer": 2},
}
_NUMBERS: Final = {word: number for number, word in enumerate(NUMBER_WORDS)}
_STATED: Final = r"\b(\d{1,2}|" + "|".join(_NUMBERS) + r") (?:\w+ )?{noun}s?\b"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What reasoning without a look at the images reaches."""

    name: str
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class DefectRationale:
    """The reasoning about the queries with one defect."""

    name: str
    replies: int
    recall: Estimate
    precision: Estimate


@dataclass(frozen=True, slots=True)
class RationaleScore:
    """The reasoning of one system.

    Attributes:
        replies: How many replies have reasoning.
        figures: By the names of ``FIGURES``.
        kappa: Cohen's kappa of asserting a violation and answering yes; None if either is constant.
        baselines: The best constant rationale, and shuffled rationales of the same category.
        defects: By category and defect, where the defect's name holds the violation.
    """

    name: str
    replies: int
    figures: dict[str, Estimate]
    kappa: float | None
    baselines: tuple[Baseline, ...]
    defects: tuple[DefectRationale, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one reply's reasoning asserts, and what is true."""

    pair: JudgedPair
    reply: ScoredReply
    named: frozenset[str]
    gold: frozenset[str]
    sentences: tuple[str, ...]
    centre: tuple[float, float] | None = None

    @property
    def known(self) -> bool:
        """Whether the query is anomalous and its defect's name holds the violation."""
        return bool(self.gold)


@lru_cache(maxsize=65536)
def _read(reasoning: str, also: str) -> tuple[frozenset[str], tuple[str, ...]]:
    sentences = tuple(found.sentence for found in find_assertions(reasoning))
    return frozenset(named_violations(reasoning, also=also)), sentences


def _reading(row: JudgedPair, reply: ScoredReply, masks: Path | None = None) -> _Reading:
    gold, phrase = _gold(row.truth)
    named, sentences = _read(reply.reasoning, phrase)
    centre = None
    if row.truth.label == ANOMALOUS:
        stated = row.truth.gold._replace(choice=None)  # a question cannot be hashed, and says nothing about places
        centre = anomaly_centre(row.truth.query_path, stated, masks)
    return _Reading(row, reply, named, gold, sentences, centre)


def _gold(truth: Truth) -> tuple[frozenset[str], str]:
    """Return the violations in the defect's name, and its words; its kind alone is too vague to be right or wrong."""
    gold, phrase = gold_violations("", truth.defect) if truth.label == ANOMALOUS else (frozenset(), "")
    return gold | ({phrase} - {""}), phrase


def is_wrong_reason(truth: Truth, reasoning: str) -> bool | None:
    """Return whether reasoning names no right violation; None if the data does not name the violation."""
    gold, phrase = _gold(truth)
    return not _read(reasoning, phrase)[0] & gold if gold else None


def _shares(reading: _Reading) -> dict[str, tuple[float, float]]:
    """Return hits and trials of each figure that a reply takes part in."""
    truth, answer = reading.pair.truth, reading.reply.answer
    found: dict[str, tuple[float, float]] = {}
    if reading.known:
        right = reading.named & reading.gold
        found["violation_recall"] = (float(bool(right)), 1.0)
        found["violation_precision"] = (float(len(right)), float(len(reading.named)))
        if nouns := _nouns(truth.defect):
            hit = any(re.search(rf"\b{noun}", sentence) for noun in nouns for sentence in reading.sentences)
            found["object_hit"] = (float(hit), 1.0)
        if answer == ANOMALOUS:
            found["wrong_reason"] = (float(not right), 1.0)
    if truth.label == NORMAL:
        found["hallucinated"] = (float(bool(reading.sentences)), 1.0)
    if answer is not None:
        found["consistency"] = (float(bool(reading.sentences) == (answer == ANOMALOUS)), 1.0)
    if answer is not None and reading.reply.again is not None:
        found["words_alone"] = (float(reading.reply.again == answer), 1.0)
    found["counts"] = _counts(truth, reading.reply.reasoning)
    if reading.centre is not None:
        found["places"] = check_places(reading.sentences, reading.centre)
    return found


def _nouns(defect: str) -> set[str]:
    words = {word.removesuffix("s") for word in re.split(r"[^a-z]+", defect.lower())}
    return words & {part.removesuffix("s") for part in PARTS.split()}


@lru_cache(maxsize=4096)
def _true_counts(category: str, defect: str) -> dict[str, int]:
    """Return the true counts of a query: the normal ones, changed by the defect's names."""
    counts = dict(_NORMAL_COUNTS.get(category, {}))
    for name in defect.split("+"):
        for number, noun in re.findall(r"(\d)_(nectarine|tangerine)s?", name):
            counts[noun] = int(number)
        if changed := re.fullmatch(r"(?:(\d)_)?(additional|missing)_(\w+?)s?", name):
            noun = changed[3].replace("_", " ")
            if noun in counts:
                counts[noun] += int(changed[1] or 1) * (1 if changed[2] == "additional" else -1)
    return counts


def _counts(truth: Truth, reasoning: str) -> tuple[float, float]:
    """Return how many stated counts of the query are right, and how many there are."""
    counts = _true_counts(truth.category, truth.defect)
    right = stated = 0
    text = re.sub(r"\b(?:instead of|rather than)\b[^.;:!?\n]*", "", reasoning.lower())
    for clause in re.split(r"[.;:!?\n]|\b(?:while|whereas|although|but)\b", text):
        if re.search(r"\b(?:reference|expected|should|both)\b", clause):
            continue
        for noun, count in counts.items():
            for word in re.findall(_STATED.replace("{noun}", noun), clause):
                stated += 1
                right += (int(word) if word.isdigit() else _NUMBERS[word]) == count
    return float(right), float(stated)


def _by_query(readings: Sequence[_Reading]) -> dict[Query, dict[str, Floats]]:
    """Return hits and trials of each figure, summed by query: replies about one query are not independent."""
    sums: dict[Query, dict[str, Floats]] = defaultdict(lambda: {name: np.zeros(2) for name in FIGURES})
    for reading in readings:
        own = sums[query_of(reading.pair.truth)]
        for name, share in _shares(reading).items():
            own[name] += share
    return sums


def score_rationales(
    system: System, *, masks: Path | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> RationaleScore:
    """Score the reasoning of a system: every reply, also those whose answer is wrong.

    Places are checked against the masks below ``masks``, the dataset's root, or else against the data's boxes.

    Raises:
        DataError: No reply has reasoning.
    """
    readings = [_reading(row, reply, masks) for row in system.rows for reply in row.replies if reply.reasoning]
    if not readings:
        raise DataError("no reply has reasoning", where=system.name)
    bootstrap = Bootstrap(resamples, seed)

    def measure(chosen: Sequence[_Reading], names: Iterable[str]) -> dict[str, Estimate]:
        sums = _by_query(chosen).values()
        return {name: bootstrap.proportion(np.array([own[name] for own in sums])) for name in names}

    figures = measure(readings, FIGURES)
    known = [reading for reading in readings if reading.known]
    by_defect: dict[str, list[_Reading]] = defaultdict(list)
    for reading in known:
        for defect in reading.pair.truth.defect.split("+"):
            by_defect[f"{reading.pair.truth.category}/{defect}"].append(reading)
    defects = (
        DefectRationale(name, len(group), *measure(group, ("violation_recall", "violation_precision")).values())
        for name, group in sorted(by_defect.items())
    )
    return RationaleScore(
        system.name, len(readings), figures, _kappa(readings), (_constant(known), _shuffled(known)), tuple(defects)
    )


def _kappa(readings: Sequence[_Reading]) -> float | None:
    answered = [reading for reading in readings if reading.reply.answer is not None]
    return kappa([bool(item.sentences) for item in answered], [item.reply.answer == ANOMALOUS for item in answered])


def _constant(known: Sequence[_Reading]) -> Baseline:
    """Return the baseline of naming one violation for every query: the one that is right most often."""
    if not known:
        return Baseline("constant", None, None)
    shares = {name: sum(name in reading.gold for reading in known) / len(known) for name in VIOLATIONS}
    best = max(shares, key=shares.__getitem__)
    return Baseline(f"constant: {best}", shares[best], shares[best])


def _shuffled(known: Sequence[_Reading]) -> Baseline:
    """Return the baseline of every query with the reasoning about another query of its category: the exact mean."""
    groups: dict[tuple[str, str], list[_Reading]] = defaultdict(list)
    for reading in known:
        groups[reading.pair.truth.dataset, reading.pair.truth.category].append(reading)
    recall, hits, named = [], 0.0, 0.0
    for group in groups.values():
        for reading in group:
            others = [other for other in group if query_of(other.pair.truth) != query_of(reading.pair.truth)]
            if not others:
                continue
            right = [len(other.named & reading.gold) for other in others]
            recall.append(sum(map(bool, right)) / len(others))
            hits += sum(right) / len(others)
            named += sum(len(other.named) for other in others) / len(others)
    return Baseline("shuffled", sum(recall) / len(recall) if recall else None, hits / named if named else None)


def compare_rationales(
    first: System, second: System, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Return A minus B for each figure, on the queries about which both reason, with a paired bootstrap interval.

    Raises:
        DataError: There is no such query.
    """
    sums = [
        _by_query([_reading(row, reply) for row in system.rows for reply in row.replies if reply.reasoning])
        for system in (first, second)
    ]
    shared = [query for query in sums[0] if query in sums[1]]
    if not shared:
        raise DataError("there is no query about which both reason", where=f"{first.name} and {second.name}")
    bootstrap = Bootstrap(resamples, seed)
    differences = {}
    for name in FIGURES:
        cells = np.array([np.r_[sums[0][query][name], sums[1][query][name]] for query in shared])
        if not cells[:, 1].sum() or not cells[:, 3].sum():
            differences[name] = Estimate(None)
            continue
        drawn = _difference(bootstrap.counts(cells))
        differences[name] = estimate(float(_difference(cells.sum(axis=0))), drawn)
    return differences


def _difference(counts: Floats) -> Floats:
    """Return the share of the first two counts minus that of the last two."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counts[..., 0] / counts[..., 1] - counts[..., 2] / counts[..., 3])
