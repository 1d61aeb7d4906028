"""Other systems, scored beside ours: a CSV of anomaly scores, or of free text.

The first row names the columns: ``pair_id`` or ``path`` (of the query, or its end from the category on), and ``score``
(the higher, the more anomalous; above the threshold the answer is yes) or ``text``, or both: then the text answers
and the score ranks.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from lad_reasoner.evaluation.outcomes import System, Verdict, join
from lad_reasoner.evaluation.protocols import Protocol, select
from lad_reasoner.pairs.reader import Truth, read_truths
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import ANOMALOUS, NORMAL, Label

__all__ = ["THRESHOLD", "read_external", "read_free_text"]

#: Of scores, as the paper reads APRIL-GAN's ("score > 0.5").
THRESHOLD: Final = 0.5

_ANSWER: Final = re.compile(r"\W*(yes|no)\b", re.IGNORECASE | re.ASCII)


def read_free_text(text: str) -> Label | None:
    """Return the answer of a system that speaks freely, as AnomalyGPT does: its first word, if that is yes or no.

    Example:
        >>> read_free_text("Yes, there is an anomaly in the image, at the top."), read_free_text("Nothing unusual")
        ('yes', None)
    """
    found = _ANSWER.match(text)
    if found is None:
        return None
    return ANOMALOUS if found.group(1).lower() == ANOMALOUS else NORMAL


def read_external(name: str, path: Path, data: Path, protocol: Protocol, *, threshold: float = THRESHOLD) -> System:
    """Read a CSV of another system.

    Args:
        name: What the system is called in tables.
        path: The CSV.
        data: The pair parquet.
        protocol: Which pairs are scored.
        threshold: A score above it is a yes.

    Raises:
        DataError: A column or value is missing, a number is none, or a pair or path occurs twice or is ambiguous.
    """
    truths = read_truths(data)
    places = _Places(truths)
    replies: dict[str, tuple[Verdict, ...]] = {}
    for where, row in _rows(path):
        pair_id = places.find(row, where=where)
        if pair_id in replies:
            raise DataError(where, found=f"{pair_id} a second time", expected="one row a pair")
        replies[pair_id] = (_reply(row, threshold, where=where),)
    return join(name, replies, scored=select(truths, protocol), known=truths)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            names = [name for name in reader.fieldnames or [] if name]
            columns = set(names)
            if twice := sorted(name for name in columns if names.count(name) > 1):
                found = f"two columns {', '.join(twice)}"
                raise DataError(f"{path}, line 1", found=found, expected="one column of a name")
            if not columns & {"pair_id", "path"} or not columns & {"score", "text"}:
                found = f"the columns {', '.join(sorted(columns)) or 'of an empty file'}"
                raise DataError(path, found=found, expected="pair_id or path, and score or text")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:  # where the reader keeps what no column names
                    count = len(reader.fieldnames or [])
                    found = f"{count + len(row[None])} values"
                    raise DataError(where, found=found, expected=f"at most {count}", remedy="quote text with commas")
                yield where, {name: value or "" for name, value in row.items() if name}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, found=str(error), expected="a readable CSV") from error


class _Places:
    """Finds pairs by id, by the query's path, or by the end of that path from the category on."""

    def __init__(self, truths: Sequence[Truth]) -> None:
        self._paths: dict[str, list[str]] = {}
        for truth in truths:
            for key in {truth.query_path, _tail(truth.query_path, truth.category)}:
                self._paths.setdefault(key, []).append(truth.pair_id)
        self._categories = {truth.category for truth in truths}

    def find(self, row: Mapping[str, str], *, where: str) -> str:
        """Return the pair that a row is about; an unknown one is returned as it stands, to be counted."""
        if row.get("pair_id"):
            return row["pair_id"]
        path = row.get("path", "").replace("\\", "/")
        if not path:
            raise DataError(where, found="no pair_id and no path", expected="one of them")
        keys = [path, *(_tail(path, category) for category in self._categories)]
        found = next((self._paths[key] for key in keys if key in self._paths), [path])
        if len(found) > 1:
            raise DataError(where, found=f"{path}, the query of {len(found)} pairs", expected="a column pair_id")
        return found[0]


def _tail(path: str, category: str) -> str:
    """Return a path from the last folder of the category's name on: results may lie in folders by category too."""
    parts = PurePosixPath(path).parts
    if category not in parts:
        return path
    return "/".join(parts[len(parts) - 1 - parts[::-1].index(category) :])


def _reply(row: Mapping[str, str], threshold: float, *, where: str) -> Verdict:
    score = None
    if row.get("score"):
        try:
            score = float(row["score"])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"{where}, column score", found=repr(row["score"]), expected="a finite number")
    if "text" in row:
        return Verdict(read_free_text(row["text"]), score=score, source=None if score is None else "external")
    if score is None:
        raise DataError(f"{where}, column score", found="nothing", expected="a number")
    return Verdict(ANOMALOUS if score > threshold else NORMAL, score=score, source="external")
