"""A few rows of a config's own data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_reasoner.support.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["require_parquet", "take_rows"]


def require_parquet(key: str, value: str, *, build: str) -> Path:
    """Return the parquet that a key names.

    Args:
        key: EasyR1's key.
        value: Its value, perhaps with EasyR1's ``@split``.
        build: The command that makes such a file.

    Raises:
        DataError: There is no such file.
    """
    path = Path(value.partition("@")[0])
    if not value or not path.is_file():
        found = f"no such file: {path}" if value else "nothing"
        remedy = f"build it (`{build}`), name another with {key}=FILE, or rehearse on drawn pairs (--synthetic)"
        raise DataError(key, found=found, remedy=remedy)
    if path.suffix != ".parquet":
        raise DataError(key, found=path.name, expected="a parquet file: a rehearsal takes rows of no other")
    return path


def take_rows(source: Path, out: Path, *, count: int) -> tuple[int, int]:
    """Write rows spread evenly over a parquet; return how many were taken, and of how many.

    Row groups are read one at a time, so that memory does not grow with the file.

    Raises:
        DataError: The file is no parquet, or has no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source) as file:
            total = file.metadata.num_rows
            places = sorted({(2 * i + 1) * total // (2 * count) for i in range(count)})
            taken = pa.concat_tables(list(_read_rows(file, places))) if total else file.schema_arrow.empty_table()
    except pa.ArrowInvalid as error:
        raise DataError(source, found=f"no readable parquet: {error}", remedy="build it again") from error
    if not total:
        raise DataError(source, found="no rows", expected="pairs", remedy="build it again")
    pq.write_table(taken, out)
    return len(taken), total


def _read_rows(file: Any, places: list[int]) -> Iterator[pa.Table]:
    start = 0
    for group in range(file.metadata.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        if inside := [place - start for place in places if start <= place < end]:
            yield file.read_row_group(group).take(inside)
        start = end
