"""Read pair parquets lazily, a few rows at a time, so that memory does not grow with the file.

A pair parquet is one file, or a folder of shards (``*.parquet``, read in the order of their names).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.pairs.schema import Choice, Image
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import IMAGE_MARKER, LABELS, Label

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = [
    "PairRecord",
    "Truth",
    "data_sha256",
    "iter_pairs",
    "parquet_files",
    "read_choices",
    "read_image",
    "read_truths",
]

#: Rows held at once. A full-size pair of MVTec LOCO AD is about 5 MB.
_BATCH_ROWS: Final = 4


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of a pair, without its images.

    Attributes:
        pair_id: Unique in its file.
        dataset: Dataset id, such as ``mvtec_loco``.
        category: The product, such as ``screw_bag``.
        label: "yes" if the query is anomalous.
        kind: One of ``task.KINDS``.
        defect: The dataset's own defect name(s), ``+``-joined.
        query_path: The query's path; pairs that share it are several references for one query.
    """

    pair_id: str
    dataset: str
    category: str
    label: Label
    kind: str
    defect: str
    query_path: str


@dataclass(frozen=True, slots=True)
class PairRecord:
    """A pair as a model is asked about it.

    Attributes:
        truth: What is true of it.
        problem: The question with one image marker an image.
        images: References first, the query last.
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


def parquet_files(path: Path) -> tuple[Path, ...]:
    """Return the file itself, or the shards of a folder.

    Raises:
        DataError: There is no such file, or the folder holds no parquet.
    """
    if path.is_dir():
        shards = tuple(sorted(path.glob("*.parquet")))
        if not shards:
            raise DataError(path, found="a folder without *.parquet", expected="a pair parquet or a folder of shards")
        return shards
    if not path.is_file():
        raise DataError(path, found="no such file", expected="a pair parquet", remedy="build one with `lad build`")
    return (path,)


def data_sha256(path: Path) -> str:
    """Return the hex digest of the file; of a folder, the digest of its shards' digests."""
    digests = []
    for file in parquet_files(path):
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def read_truths(path: Path) -> list[Truth]:
    """Read what is true of every pair; no image is read.

    Raises:
        DataError: Not a pair parquet, a label that is neither yes nor no, or a pair_id that occurs twice.
    """
    truths = [
        _truth(row, where=where)
        for file in parquet_files(path)
        for where, row in _iter_rows(file, _TRUTH_COLUMNS, 4096)
    ]
    if not truths:
        raise DataError(path, found="no rows", expected="at least one pair")
    pair_id, times = Counter(truth.pair_id for truth in truths).most_common(1)[0]
    if times > 1:
        raise DataError(path, found=f"pair_id {pair_id!r} {times} times", expected="unique ids")
    return truths


def read_choices(path: Path) -> dict[str, Choice]:
    """Read the multiple-choice question of every pair, by pair_id; no image is read.

    Raises:
        DataError: Not a pair parquet, or a pair is not asked such a question.
    """
    return {
        row["pair_id"]: _choice(row["answer"], where=where)
        for file in parquet_files(path)
        for where, row in _iter_rows(file, ("pair_id", "answer"), 4096)
    }


def _choice(gold: str, *, where: str) -> Choice:
    try:
        choice = Choice(**json.loads(gold)["choice"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}, column answer",
            found=f"no multiple-choice question ({type(error).__name__})",
            expected="a question with options and a right letter",
            remedy="build the data with `lad build mmad`",
        ) from error
    if not isinstance(choice.options, dict) or choice.letter not in choice.options:
        found = f"the right letter {choice.letter!r} for the options {choice.options!r:.80}"
        raise DataError(f"{where}, column answer", found=found, expected="one of them")
    return choice


def iter_pairs(path: Path) -> Iterator[PairRecord]:
    """Yield every pair in file order.

    Raises:
        DataError: Not a pair parquet, or a row whose images do not match its markers.
    """
    for file in parquet_files(path):
        for where, row in _iter_rows(file, _PAIR_COLUMNS, _BATCH_ROWS):
            yield _pair(row, where=where)


def read_image(image: Image, root: Path) -> bytes:
    """Return the encoded image: its stored bytes, or the file at its path (relative ones are below ``root``).

    Raises:
        DataError: The file cannot be read.
    """
    if image.data is not None:
        return image.data
    path = root / image.path
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "give --image-root if the images moved"
        raise DataError(path, found=error.strerror or str(error), expected="an image", remedy=remedy) from error


def _open(file: Path, columns: Sequence[str]) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        found = f"a file that is not parquet ({error})"
        raise DataError(file, found=found, expected="a pair parquet", remedy="build it with `lad build`") from error
    missing = [name for name in columns if name not in parquet.schema_arrow.names]
    if missing:
        found = f"no column {', '.join(missing)}"
        raise DataError(
            file, found=found, expected="the columns of a pair parquet", remedy="build it with `lad build`"
        )
    return parquet


def _iter_rows(file: Path, columns: Sequence[str], batch_rows: int) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa

    number = 0
    with _open(file, columns) as parquet:
        try:
            # One row group at a time: asked for all of them, pyarrow reads ahead.
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(batch_rows, row_groups=[group], columns=list(columns)):
                    for row in batch.to_pylist():
                        yield f"{file}, row {number}", row
                        number += 1
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}, row {number}", found=f"unreadable parquet ({error})") from error


def _truth(row: dict[str, Any], *, where: str) -> Truth:
    for name in _TRUTH_COLUMNS:
        if not isinstance(row[name], str):
            raise DataError(f"{where}, column {name}", found=repr(row[name]), expected="text")
    if row["label"] not in LABELS:
        raise DataError(f"{where}, column label", found=repr(row["label"]), expected=" or ".join(LABELS))
    return Truth(**{name: row[name] for name in _TRUTH_COLUMNS})


def _pair(row: dict[str, Any], *, where: str) -> PairRecord:
    truth = _truth(row, where=where)
    problem, stored = row["problem"] or "", row["images"] or []
    markers = problem.count(IMAGE_MARKER)
    if markers != len(stored) or markers < 2:
        found = f"{markers} {IMAGE_MARKER} and {len(stored)} images"
        raise DataError(f"{where}, pair {truth.pair_id}", found=found, expected="one marker an image, at least two")
    digests = [*(row["reference_sha256"] or "").split("\n"), row["query_sha256"] or ""]
    if len(digests) != len(stored):
        digests = [""] * len(stored)
    images = tuple(
        # `lad build --images path` stores plain paths, which is what both trainers read where there are no bytes.
        Image(data=None, path=image, sha256=digest)
        if isinstance(image, str)
        else Image(data=image["bytes"], path=image["path"] or "", sha256=digest)
        for image, digest in zip(stored, digests, strict=True)
    )
    return PairRecord(truth=truth, problem=problem, images=images)
