"""Other systems, scored next to ours: a CSV of anomaly scores, or of free text.

The first row names the columns: ``pair_id`` or ``path`` (of the query, or its end from the category on), and ``score``
(higher means more anomalous; above the threshold the answer is yes) or ``text``, or both: then the text answers and
the score ranks.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import numpy as np

from lad_reasoner.evaluation.outcomes import ScoredReply, System, join
from lad_reasoner.evaluation.protocols import Protocol, select
from lad_reasoner.pairs.reader import Truth, read_truths
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.response import read_outcome
from lad_reasoner.task.task import ANOMALOUS, NORMAL, Label

__all__ = ["THRESHOLD", "read_external", "read_free_text", "read_rule"]

#: Of scores from 0 to 1, as the paper reads APRIL-GAN's ("score > 0.5").
THRESHOLD: Final = 0.5

_ANSWER: Final = re.compile(r"\W*(yes|no)\b", re.IGNORECASE | re.ASCII)
_RULE: Final = re.compile(r"(?:f1-max|quantile:(?P<share>0?\.\d+)):(?P<split>[\w-]+)")


class _CsvRow(NamedTuple):
    """What a row holds: the score, the path or id, and the answer of its text, if there is a column of texts."""

    score: float | None
    path: str
    has_text: bool
    answer: Label | None


def read_free_text(text: str) -> Label | None:
    """Return the answer of a text: what `parse` reads, else, as of AnomalyGPT, its first word, if that is yes or no.

    Example:
        >>> read_free_text("Yes, there is an anomaly in the image, at the top."), read_free_text("Nothing unusual")
        ('yes', None)
    """
    found = _ANSWER.match(text)
    if found is None:
        return read_outcome(text).answer
    return ANOMALOUS if found.group(1).lower() == ANOMALOUS else NORMAL


def read_rule(text: str) -> float | str:
    """Return a threshold: a number, or the rule that chooses it on a split.

    Example:
        >>> read_rule("0.3"), read_rule("quantile:0.95:validation")
        (0.3, 'quantile:0.95:validation')

    Raises:
        UsageError: The text is neither.
    """
    if _RULE.fullmatch(text):
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        expected = "a finite number, f1-max:SPLIT or quantile:SHARE:SPLIT, such as quantile:0.95:validation"
        raise UsageError(f"{text!r} is not {expected}", where="--threshold")
    return number


_REMEDY: Final = "Give --threshold NUMBER, f1-max:SPLIT or quantile:SHARE:SPLIT"


def read_external(
    name: str, path: Path, data: Path, protocol: Protocol, *, threshold: float | str | None = None
) -> System:
    """Read the CSV of another system.

    A score above the threshold is a yes. The threshold is a number, or a rule as `read_rule` reads it; 0.5 by default,
    if all scores are from 0 to 1. A rule uses the rows whose path has the split as a folder: ``f1-max`` takes the
    threshold of the best F1, ``quantile`` that quantile of the split's normal images.

    Raises:
        DataError: A column or value is missing, a number is not one, or a pair or path occurs twice or is ambiguous.
        UsageError: The scores need a threshold, or the rule's split has no images.
    """
    truths = read_truths(data)
    places = _Places(truths)
    rows: dict[str, _CsvRow] = {}
    for where, row in _rows(path):
        pair_id = places.find(row, where=where)
        if pair_id in rows:
            raise DataError(f"{pair_id} occurs a second time; a pair has one row", where=where)
        rows[pair_id] = _reply(row, where=where)
    limit, notes = _choose(name, rows, threshold, {truth.pair_id: truth for truth in truths})
    replies = {pair_id: (_verdict(row, limit),) for pair_id, row in rows.items()}
    system = join(name, replies, scored=select(truths, protocol), known=truths)
    split = threshold.rpartition(":")[2] if isinstance(threshold, str) else None
    unknown = tuple(pair_id for pair_id in system.unknown if split not in PurePosixPath(rows[pair_id].path).parts)
    said = {row.replies[0].answer for row in system.rows}
    if limit is not None and len(system.rows) > 1 and len(said) == 1:
        scores = [row.score for row in rows.values() if row.score is not None]
        problem = f"every score gives the answer {said.pop()} at the threshold {limit:g}"
        bounds = f"the scores lie between {min(scores):g} and {max(scores):g}"
        notes = (*notes, f"warning: {problem}; {bounds}. {_REMEDY}.")
    return replace(system, unknown=unknown, notes=notes)


def _choose(
    name: str, rows: Mapping[str, _CsvRow], threshold: float | str | None, truths: Mapping[str, Truth]
) -> tuple[float | None, tuple[str, ...]]:
    """Return the threshold, None where texts answer, and what to report about it."""
    scores = [row.score for row in rows.values() if row.score is not None]
    if not scores or any(row.has_text for row in rows.values()):
        return None, ()
    if isinstance(threshold, str):
        chosen, images = _apply_rule(threshold, rows, truths)
        split = threshold.rpartition(":")[2]
        own = any(split in PurePosixPath(truth.query_path).parts for truth in truths.values())
        optimistic = ", the scored ones among them: the result is optimistic" if own else ""
        return chosen, (f"the threshold {chosen:.6g} is {threshold} over {images} images{optimistic}",)
    if threshold is None and not (min(scores) >= 0 and max(scores) <= 1):
        problem = (
            f"the scores of {name} lie between {min(scores):g} and {max(scores):g}, "
            f"so the default threshold {THRESHOLD} does not apply"
        )
        raise UsageError(problem, remedy=_REMEDY)
    return THRESHOLD if threshold is None else threshold, ()


def _apply_rule(rule: str, rows: Mapping[str, _CsvRow], truths: Mapping[str, Truth]) -> tuple[float, int]:
    """Return the threshold that a rule chooses, and the number of images it used."""
    found = _RULE.fullmatch(rule)
    if found is None:
        raise UsageError(f"{rule!r} is not a rule", where="--threshold")
    anomalous, scores = [], []
    for pair_id, row in rows.items():
        parts = PurePosixPath(truths[pair_id].query_path if pair_id in truths else row.path).parts
        if row.score is not None and found["split"] in parts:
            normal = truths[pair_id].label == NORMAL if pair_id in truths else parts[-2:-1] == ("good",)
            anomalous.append(not normal)
            scores.append(row.score)
    labels, values = np.array(anomalous, dtype=bool), np.array(scores)
    if found["share"]:
        if not (~labels).any():
            raise UsageError(f"the split {found['split']!r} has no normal image", where="--threshold")
        return float(np.quantile(values[~labels], float(found["share"]))), int((~labels).sum())
    if not labels.any() or labels.all():
        raise UsageError(f"the split {found['split']!r} lacks normal or anomalous images", where="--threshold")
    steps = np.unique(values)  # ascending: a threshold lies between two neighbours
    limits = np.r_[np.nextafter(steps[0], -np.inf), (steps[:-1] + steps[1:]) / 2]
    hits = np.array([(labels & (values > limit)).sum() for limit in limits])
    called = np.array([(values > limit).sum() for limit in limits])
    return float(limits[np.argmax(2 * hits / (called + labels.sum()))]), len(values)


def _verdict(row: _CsvRow, limit: float | None) -> ScoredReply:
    answer = row.answer
    if limit is not None and row.score is not None:
        answer = ANOMALOUS if row.score > limit else NORMAL
    return ScoredReply(answer, score=row.score, source=None if row.score is None else "external")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            names = [name for name in reader.fieldnames or [] if name]
            columns = set(names)
            if twice := sorted(name for name in columns if names.count(name) > 1):
                raise DataError(f"two columns are called {', '.join(twice)}", where=f"{path}, line 1")
            if not columns & {"pair_id", "path"} or not columns & {"score", "text"}:
                found = f"the columns are {', '.join(sorted(columns))}" if columns else "an empty file"
                raise DataError(f"{found}; pair_id or path, and score or text are needed", where=path)
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:  # where the reader keeps values without a column
                    count = len(reader.fieldnames or [])
                    problem = f"{count + len(row[None])} values for {count} columns"
                    raise DataError(problem, where=where, remedy="Quote texts that contain commas")
                yield where, {name: value or "" for name, value in row.items() if name}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"not a readable CSV ({reason})", where=path) from error


class _Places:
    """Finds pairs by id, by the query's path, or by the end of that path from the category on."""

    def __init__(self, truths: Sequence[Truth]) -> None:
        self._paths: dict[str, list[str]] = {}
        for truth in truths:
            for key in {truth.query_path, _tail(truth.query_path, truth.category)}:
                self._paths.setdefault(key, []).append(truth.pair_id)
        self._categories = {truth.category for truth in truths}

    def find(self, row: Mapping[str, str], *, where: str) -> str:
        """Return the pair that a row is about; an unknown path is returned as it is, to be counted."""
        if row.get("pair_id"):
            return row["pair_id"]
        path = row.get("path", "").replace("\\", "/")
        if not path:
            raise DataError("there is no pair_id and no path", where=where)
        keys = [path, *(_tail(path, category) for category in self._categories)]
        found = next((self._paths[key] for key in keys if key in self._paths), [path])
        if len(found) > 1:
            problem = f"{path} is the query of {len(found)} pairs"
            raise DataError(problem, where=where, remedy="Name the pairs in a column pair_id")
        return found[0]


def _tail(path: str, category: str) -> str:
    """Return a path from the last folder of the category's name on: results may lie in folders by category too."""
    parts = PurePosixPath(path).parts
    if category not in parts:
        return path
    return "/".join(parts[len(parts) - 1 - parts[::-1].index(category) :])


def _reply(row: Mapping[str, str], *, where: str) -> _CsvRow:
    score = None
    if row.get("score"):
        try:
            score = float(row["score"])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"{row['score']!r} is not a finite number", where=f"{where}, column score")
    elif "text" not in row:
        raise DataError("the score is empty", where=f"{where}, column score")
    path = (row.get("path") or row.get("pair_id", "")).replace("\\", "/")
    return _CsvRow(score, path, "text" in row, read_free_text(row.get("text", "")))
