"""Read pair parquets lazily, a few rows at a time, so that memory does not grow with the file.

A pair parquet is one file, or a folder of shards (``*.parquet``, read in the order of their names). A file with only
EasyR1's three columns (``problem``, ``images``, ``answer``) is read as well: `complete_row` adds what its gold answers
state.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.pairs.images import read_image_bytes
from lad_reasoner.pairs.schema import Choice, Image
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.files import file_sha256
from lad_reasoner.task.gold import Gold, read_gold
from lad_reasoner.task.task import IMAGE_MARKER, LABELS, NORMAL, Label

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = [
    "EASYR1_COLUMNS",
    "PairRecord",
    "Truth",
    "complete_row",
    "data_sha256",
    "is_easyr1_only",
    "iter_pairs",
    "iter_rows",
    "open_parquet",
    "parquet_files",
    "query_digests",
    "read_choices",
    "read_image",
    "read_truths",
    "shared_queries",
]

#: What EasyR1 reads. A file may have no other columns.
EASYR1_COLUMNS: Final = ("problem", "images", "answer")

#: Dataset, category and defect of a row whose gold answer does not name them.
UNNAMED: Final = "unnamed"

#: Rows held in memory. A full-size pair of MVTec LOCO AD is about 5 MB.
_BATCH_ROWS: Final = 4

#: Rows held in memory when no image is read.
_TEXT_ROWS: Final = 4096

_BUILD: Final = "Build it with `lad build`"


@dataclass(frozen=True, slots=True)
class Truth:
    """The ground truth of a pair, without its images.

    The first six fields are those of `Pair`. Pairs that share a ``query_path`` are several references for one query.
    ``answer`` is the gold answer as stored; empty if unknown.
    """

    pair_id: str
    dataset: str
    category: str
    label: Label
    kind: str
    defect: str
    query_path: str
    answer: str = ""

    @property
    def gold(self) -> Gold:
        """The gold answer; what the file does not hold comes from the columns."""
        if self.answer:
            return read_gold(self.answer)
        return Gold(self.label, self.category, self.kind, self.defect)


@dataclass(frozen=True, slots=True)
class PairRecord:
    """A pair as it is read from a file and shown to a model.

    ``problem`` is the question with one marker per image; of the images the query is the last.
    """

    truth: Truth
    problem: str
    images: tuple[Image, ...]

    @property
    def pair_id(self) -> str:
        """The pair's id."""
        return self.truth.pair_id


_TRUTH_COLUMNS: Final = tuple(field.name for field in fields(Truth))
_PAIR_COLUMNS: Final = (*_TRUTH_COLUMNS, "problem", "images", "reference_sha256", "query_sha256")


def parquet_files(path: str | Path) -> tuple[Path, ...]:
    """Return the file itself, or the shards of a folder.

    Raises:
        DataError: There is no such file, or the folder contains no parquet file.
    """
    path = Path(path)
    if path.is_dir():
        shards = tuple(sorted(path.glob("*.parquet")))
        if not shards:
            raise DataError("the folder contains no *.parquet file", where=path, remedy=_BUILD)
        return shards
    if not path.is_file():
        raise DataError("no such file", where=path, remedy="Build a pair parquet with `lad build`")
    return (path,)


def data_sha256(path: str | Path) -> str:
    """Return the hex digest of the file; for a folder, the digest of its shards' digests."""
    digests = [file_sha256(file) for file in parquet_files(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def read_truths(path: str | Path) -> list[Truth]:
    """Read the ground truth of every pair; no image is read.

    Raises:
        DataError: Not a pair parquet, a label that is neither yes nor no, or a pair_id that occurs twice.
    """
    truths = [_truth(row, where=where) for where, row in _iter_pair_rows(path, _TRUTH_COLUMNS, _TEXT_ROWS)]
    if not truths:
        raise DataError("the file has no rows", where=path, remedy="Build it again with a wider recipe")
    pair_id, times = Counter(truth.pair_id for truth in truths).most_common(1)[0]
    if times > 1:
        raise DataError(f"pair_id {pair_id!r} occurs {times} times, but ids must be unique", where=path)
    return truths


def read_choices(path: str | Path) -> dict[str, Choice]:
    """Read the multiple-choice question of every pair, by pair_id; no image is read.

    Raises:
        DataError: Not a pair parquet, or a pair without such a question.
    """
    rows = _iter_pair_rows(path, ("pair_id", "answer"), _TEXT_ROWS)
    return {row["pair_id"]: _choice(row["answer"], where=where) for where, row in rows}


def _choice(gold: str, *, where: str) -> Choice:
    place = f"{where}, column answer"
    try:
        choice = Choice(**read_gold(gold).choice)
    except (ValueError, TypeError) as error:
        problem = f"there is no multiple-choice question ({type(error).__name__})"
        raise DataError(problem, where=place, remedy="Build the data with `lad build mmad`") from error
    if not isinstance(choice.options, dict) or choice.letter not in choice.options:
        problem = f"the right letter {choice.letter!r} is not one of the options {choice.options!r:.80}"
        raise DataError(problem, where=place)
    return choice


def query_digests(digests: Iterable[object]) -> frozenset[str]:
    """Return the distinct digests in a column ``query_sha256``; queries without one cannot be compared."""
    return frozenset(digest for digest in digests if isinstance(digest, str) and digest)


def shared_queries(queries: frozenset[str], others: frozenset[str], *, other: object) -> str:
    """Return the problem that two files share queries, as a sentence; empty if they do not.

    Example:
        >>> shared_queries(frozenset({"a1", "b2"}), frozenset({"b2"}), other="grpo.parquet")
        '1 of its queries are in grpo.parquet too'
    """
    shared = len(queries & others)
    return f"{shared} of its queries are in {other} too" if shared else ""


def iter_pairs(path: str | Path) -> Iterator[PairRecord]:
    """Yield every pair in file order.

    Raises:
        DataError: Not a pair parquet, or a row whose images do not match its markers.
    """
    for where, row in _iter_pair_rows(path, _PAIR_COLUMNS, _BATCH_ROWS):
        yield _pair(row, where=where)


def read_image(image: Image, root: Path) -> bytes:
    """Return the encoded image: its stored bytes, or the file at its path (relative paths start at ``root``).

    Raises:
        DataError: The file cannot be read.
    """
    if image.data is not None:
        return image.data
    return read_image_bytes(root / image.path, remedy="Use --image-root if the images moved")


def is_easyr1_only(columns: Sequence[str]) -> bool:
    """Return whether a file has EasyR1's columns but none that names its pairs."""
    return "pair_id" not in columns and set(EASYR1_COLUMNS) <= set(columns)


def complete_row(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a row of EasyR1's columns with the provenance columns; each query counts as an image of its own.

    The pair is named after the ``number`` of its row in the file or folder, from 0.

    Raises:
        ValueError: The gold answer cannot be read.
    """
    gold = read_gold(row["answer"])
    normal = gold.label == NORMAL
    name = f"row-{number:06d}"
    return {
        **row,
        "pair_id": name,
        "dataset": UNNAMED,
        "category": gold.category or UNNAMED,
        "label": gold.label,
        "kind": gold.kind or ("good" if normal else "own"),
        "defect": gold.defect or ("good" if normal else UNNAMED),
        "reference_path": "",
        "query_path": name,
        "reference_sha256": "",
        "query_sha256": "",
    }


@contextmanager
def open_parquet(file: Path, *, memory_map: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a parquet file; what arrow raises while it is open becomes an error that names the file.

    A map, ``memory_map``, suits readers of small parts of a large file.

    Raises:
        DataError: It is not readable parquet, or a column occurs twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, memory_map=memory_map) as parquet:
            _refuse_equal_names(parquet.schema_arrow.names, file)
            yield parquet
    except (pa.ArrowException, OSError, ValueError) as error:  # invalid UTF-8 is a ValueError
        raise DataError(f"the file is not readable parquet ({error})", where=file, remedy=_BUILD) from error


def _refuse_equal_names(columns: Sequence[str], file: Path) -> None:
    if twice := [name for name, times in Counter(columns).items() if times > 1]:
        raise DataError(f"the column {twice[0]!r} occurs twice", where=file, remedy=_BUILD)


def iter_rows(
    file: Path, columns: Sequence[str] | None = None, *, batch_rows: int = _BATCH_ROWS
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one parquet file, of which ``batch_rows`` are held in memory; by default with all columns.

    Raises:
        DataError: It is not readable parquet.
    """
    import pyarrow as pa

    number = 0
    with open_parquet(file) as parquet:
        try:
            # One row group at a time: asked for all of them, pyarrow reads ahead.
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(batch_rows, row_groups=[group], columns=columns and list(columns)):
                    for row in batch.to_pylist():
                        yield row
                        number += 1
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"cannot read the row ({error})", where=f"{file}, row {number}") from error


def _columns(file: Path, present: Sequence[str], wanted: Sequence[str]) -> tuple[list[str], bool]:
    """Return the columns to read, and whether each row must be completed."""
    if is_easyr1_only(present):
        return [name for name in EASYR1_COLUMNS if name in wanted or name == "answer"], True
    if missing := [name for name in wanted if name not in present]:
        raise DataError(f"there is no column {', '.join(missing)}", where=file, remedy=_BUILD)
    return list(wanted), False


def _iter_pair_rows(path: str | Path, wanted: Sequence[str], batch_rows: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each row stands, and the row with the provenance that its gold answer states."""
    total = 0
    for file in parquet_files(path):
        with open_parquet(file) as parquet:
            columns, incomplete = _columns(file, parquet.schema_arrow.names, wanted)
        for number, row in enumerate(iter_rows(file, columns, batch_rows=batch_rows)):
            where = f"{file}, row {number}"
            yield where, _complete(row, total, where) if incomplete else row
            total += 1


def _complete(row: Mapping[str, Any], number: int, where: str) -> dict[str, Any]:
    try:
        return complete_row(row, number)
    except ValueError as error:
        raise DataError(str(error), where=f"{where}, column answer") from error


def _truth(row: Mapping[str, Any], *, where: str) -> Truth:
    for name in _TRUTH_COLUMNS:
        if not isinstance(row[name], str):
            raise DataError(f"{row[name]!r} is not text", where=f"{where}, column {name}")
    if row["label"] not in LABELS:
        problem = f"{row['label']!r} is not a label; use {' or '.join(LABELS)}"
        raise DataError(problem, where=f"{where}, column label")
    try:
        read_gold(row["answer"])
    except ValueError as error:
        raise DataError(str(error), where=f"{where}, column answer") from error
    return Truth(**{name: row[name] for name in _TRUTH_COLUMNS})


def _refuse_types(row: Mapping[str, Any], problem: object, stored: object, where: str) -> None:
    """Raise a DataError that names the column if one holds something else than a pair's."""
    if not isinstance(problem, str):
        raise DataError(f"{problem!r:.80} is not text", where=f"{where}, column problem")
    if not isinstance(stored, list):
        raise DataError(f"{stored!r:.80} is not a list of images", where=f"{where}, column images")
    for image in stored:
        if isinstance(image, str):
            continue
        if not isinstance(image, dict) or not {"bytes", "path"} <= image.keys():
            problem = f"{image!r:.80} is not an image; use bytes and path, or a path"
            raise DataError(problem, where=f"{where}, column images")
        if not isinstance(image["bytes"], bytes | None) or not isinstance(image["path"], str | None):
            raise DataError(f"{image!r:.80} is not an image", where=f"{where}, column images")
    for name in ("reference_sha256", "query_sha256"):
        if not isinstance(row[name], str | None):
            raise DataError(f"{row[name]!r:.80} is not text", where=f"{where}, column {name}")


def _pair(row: Mapping[str, Any], *, where: str) -> PairRecord:
    truth = _truth(row, where=where)
    problem, stored = row["problem"] or "", row["images"] or []
    _refuse_types(row, problem, stored, where)
    markers = problem.count(IMAGE_MARKER)
    if markers != len(stored) or markers < 2:
        fault = f"the problem has {markers} {IMAGE_MARKER} for {len(stored)} images; use one per image, at least two"
        raise DataError(fault, where=f"{where}, pair {truth.pair_id}")
    digests = [*(row["reference_sha256"] or "").split("\n"), row["query_sha256"] or ""]
    if len(digests) != len(stored):
        digests = [""] * len(stored)
    # `lad build --images path` stores plain paths, which is what both trainers read where there are no bytes.
    parts = [(None, image) if isinstance(image, str) else (image["bytes"], image["path"] or "") for image in stored]
    images = (Image(data, path, digest) for (data, path), digest in zip(parts, digests, strict=True))
    return PairRecord(truth=truth, problem=problem, images=tuple(images))
