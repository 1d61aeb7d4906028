"""Images, pairs and pair parquets for the tests, made in one way."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lad_reasoner.inference.predictions import RunKey, Sampling
from lad_reasoner.pairs.schema import Choice, Image, Pair, pair_schema

__all__ = ["image", "make_pair", "make_run_key", "png_of_squares", "write_pairs", "write_rows"]


def png_of_squares(
    rng: np.random.Generator, width: int = 84, height: int = 84, *, cells: int = 6, shades: tuple[int, int] = (0, 256)
) -> bytes:
    """Return a PNG of ``cells`` by ``cells`` coloured squares."""
    from PIL import Image as Pillow

    squares = rng.integers(*shades, (cells, cells, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(squares).resize((width, height), Pillow.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def image(data: bytes, path: str) -> Image:
    """Return an image with its digest."""
    return Image(data=data, path=path, sha256=hashlib.sha256(data).hexdigest())


def make_pair(
    category: str,
    kind: str,
    references: Sequence[Image],
    query: Image,
    *,
    defect: str,
    dataset: str = "mvtec_loco",
    choice: Choice | None = None,
) -> Pair:
    """Return a pair whose label follows from its kind, and whose id from its query."""
    normal = kind == "good"
    return Pair(
        pair_id=f"{dataset}/{query.path}",
        dataset=dataset,
        category=category,
        label="no" if normal else "yes",
        kind=kind,
        defect="good" if normal else defect,
        references=references,
        query=query,
        choice=choice,
    )


def make_run_key(data_sha256: str, **changes: Any) -> RunKey:
    """Return the key of a greedy run of a model "m" on some data."""
    sampling = Sampling(temperature=0, max_new_tokens=8, seed=0, structured=False, min_pixels=None, max_pixels=None)
    fields = {"model": "m", "model_digest": None, "backend": "transformers", "dtype": None, "prompt_sha256": "p"}
    return RunKey(**(fields | {"data_sha256": data_sha256, "sampling": sampling} | changes))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> Path:
    """Write rows of the pair parquet; the options are those of ``pyarrow.parquet.write_table``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows), schema=pair_schema()), path, **options)
    return path


def write_pairs(path: Path, pairs: Sequence[Pair], **options: Any) -> Path:
    """Write a pair parquet."""
    return write_rows(path, [pair.to_row() for pair in pairs], **options)
