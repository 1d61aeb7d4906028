"""The pair parquet's writer: constant memory and reproducible bytes.

Row groups are cut by bytes, since a row is a few megabytes of images. Image bytes are stored as they are (they are
compressed already); only columns of few values use a dictionary. Nothing that changes from run to run (a time, a
machine's name) is written, so that the same rows give the same file with the same version of pyarrow.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.pairs.schema import Pair, pair_schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROW_GROUP_BYTES", "PairWriter", "RowWriter", "path_schema"]

#: Our choice: large compared with a row group's metadata, and small enough that malloc gives the same memory
#: again (32 MiB and more is mapped anew each time, which costs a tenth of the CPU time of a build).
ROW_GROUP_BYTES: Final = 16 * 1024 * 1024

#: Some images to a page: the writer copies less than with one each.
_PAGE_BYTES: Final = 8 * 1024 * 1024

#: Our estimate of a row's text, so that rows without image bytes fill a row group too.
_ROW_BYTES: Final = 2048

#: Every text: long ones (the prompt) and short ones (the label) recur from row to row.
_DICTIONARY_COLUMNS: Final = [
    "problem",
    "data_source",
    "prompt.list.element.role",
    "prompt.list.element.content",
    "reward_model.style",
    "dataset",
    "category",
    "label",
    "kind",
    "defect",
    "messages.list.element.role",
]


def path_schema() -> pa.Schema:
    """Return the pair schema with ``images`` as plain paths.

    A struct without bytes is what LLaMA-Factory alone can read; strings are read by EasyR1, verl and LLaMA-Factory.
    """
    import pyarrow as pa

    schema = pair_schema()
    return schema.set(schema.get_field_index("images"), pa.field("images", pa.list_(pa.string())))


class RowWriter:
    """Writes rows with images to one parquet file.

    Args:
        path: The file; the caller sees to it that it is a temporary name.
        schema: Of the rows.
        row_group_bytes: A row group is closed once its images reach this many bytes.

    Attributes:
        rows: Rows written.
        bytes_taken: Bytes written: the images, and an estimate of the text.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        import pyarrow.parquet as pq

        self.rows = 0
        self.bytes_taken = 0
        self._limit = row_group_bytes
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self._schema = schema
        self._path = path
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="none",
            use_dictionary=_DICTIONARY_COLUMNS,
            write_statistics=False,
            data_page_size=_PAGE_BYTES,
            version="2.6",
        )
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._syncing: Future[None] | None = None

    def write(self, row: dict[str, Any], *, image_bytes: int) -> None:
        """Append one row with images of this size."""
        self._pending.append(row)
        self._pending_bytes += image_bytes + _ROW_BYTES
        self.rows += 1
        self.bytes_taken += image_bytes + _ROW_BYTES
        if self._pending_bytes >= self._limit:
            self._flush()

    def close(self) -> None:
        """Write what is pending, and the footer."""
        self._flush()
        self._writer.close()
        self._syncer.shutdown()
        if self._syncing is not None:
            self._syncing.result()

    def _sync_behind(self) -> None:
        """Send what is written to the disk while more is made, so that the last sync has little left to wait for."""
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()  # the kernel tells of a failed write once: it must not be lost
        self._syncing = self._syncer.submit(_sync_data, self._path)

    def _flush(self) -> None:
        import pyarrow as pa

        if self._pending:
            columns = [_to_array([row[f.name] for row in self._pending], f.type) for f in self._schema]
            table = pa.Table.from_arrays(columns, schema=self._schema)
            self._pending, self._pending_bytes = [], 0  # freed before the writer makes its own copy
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._sync_behind()


class PairWriter(RowWriter):
    """Writes pairs to one parquet file, with the bytes of their images, or with only their paths."""

    def __init__(self, path: Path, *, embed: bool = True) -> None:
        super().__init__(path, pair_schema() if embed else path_schema())
        self._embed = embed

    def write_pair(self, pair: Pair) -> None:
        """Append one pair."""
        row = pair.to_row()
        images = (*pair.references, pair.query)
        if not self._embed:
            row["images"] = [image.path for image in images]
        self.write(row, image_bytes=sum(len(image.data or b"") for image in images))


def _to_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values without nulls as an arrow array: as ``pa.array``, three times as fast for images.

    ``pa.array`` looks at each value by itself, and imports pandas for that.
    """
    import numpy as np
    import pyarrow as pa

    def offsets_of(parts: Sequence[Any]) -> pa.Buffer:
        return pa.py_buffer(np.cumsum([0, *map(len, parts)], dtype=np.int32))

    if pa.types.is_struct(kind):
        children = [_to_array([value[member.name] for value in values], member.type) for member in kind]
        return pa.Array.from_buffers(kind, len(values), [None], children=children)
    if pa.types.is_list(kind):
        child = _to_array(list(chain.from_iterable(values)), kind.value_type)
        return pa.Array.from_buffers(kind, len(values), [None, offsets_of(values)], children=[child])
    parts = [value.encode() if isinstance(value, str) else value for value in values]
    return pa.Array.from_buffers(kind, len(values), [None, offsets_of(parts), pa.py_buffer(b"".join(parts))])


def _sync_data(file: Path) -> None:
    with file.open("rb+") as written:
        getattr(os, "fdatasync", os.fsync)(written.fileno())  # macOS has no fdatasync
