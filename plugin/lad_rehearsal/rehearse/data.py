"""Select a few rows of a config's own data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_reasoner.pairs.reader import open_parquet
from lad_reasoner.support.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["require_parquet", "take_rows"]


def require_parquet(key: str, value: str, *, build: str) -> Path:
    """Return the parquet file that EasyR1's key names, perhaps with an ``@split``; ``build`` makes such a file.

    Raises:
        DataError: The file does not exist or is not a parquet file.
    """
    path = Path(value.partition("@")[0])
    if not value or not path.is_file():
        problem = f"no such file: {path}" if value else "no file is set"
        remedy = f"Build it (`{build}`), choose another with {key}=FILE, or use synthetic pairs (--synthetic)"
        raise DataError(problem, where=key, remedy=remedy)
    if path.suffix != ".parquet":
        raise DataError(f"{path} is not a parquet file; a rehearsal reads no other format", where=key)
    return path


def take_rows(source: Path, out: Path, *, count: int) -> tuple[int, int]:
    """Write rows that are spread evenly over a parquet file; return their number and the number of all rows.

    Row groups are read one at a time, so that memory does not grow with the file.

    Raises:
        DataError: The file is not readable, or has no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_parquet(source) as file:
        total = file.metadata.num_rows
        places = sorted({(2 * i + 1) * total // (2 * count) for i in range(count)})
        taken = pa.concat_tables(list(_read_rows(file, places))) if total else file.schema_arrow.empty_table()
    if not total:
        raise DataError("the file has no rows", where=source, remedy="Build it again")
    pq.write_table(taken, out)
    return len(taken), total


def _read_rows(file: Any, places: list[int]) -> Iterator[pa.Table]:
    start = 0
    for group in range(file.metadata.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        if inside := [place - start for place in places if start <= place < end]:
            yield file.read_row_group(group).take(inside)
        start = end
