"""The rows of a training file whose sampled answers are mixed: the offline counterpart of DAPO's dynamic sampling."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

from lad_datasets.builders.describe import description_files, iter_provenance
from lad_datasets.files.manifest import count_rows, nest_counts, read_object, versions
from lad_datasets.files.parquet import RowWriter
from lad_datasets.leakage.guard import refuse_test_image
from lad_reasoner.evaluation.difficulty import PairDifficulty, majority_at, mixed_pairs, pass_at, read_difficulty
from lad_reasoner.evaluation.score import data_of, read_system
from lad_reasoner.pairs.reader import data_sha256, iter_rows, open_parquet, parquet_files, read_truths
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.files import file_sha256, locked, replace_when_done, require_absent, unchanged, write_json

__all__ = ["filter_pairs"]


def filter_pairs(
    predictions: Path,
    out: Path,
    *,
    data: Path | None = None,
    min_share: float | None = None,
    max_share: float | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the pairs whose sampled answers are mixed, with a manifest next to them; return the manifest.

    Args:
        predictions: JSON lines of `lad predict --samples` on the training file.
        out: The parquet to write.
        data: The training file; the one that the run card names by default.
        min_share: The smallest share of right answers; by default at least one answer is right.
        max_share: The largest share; by default at least one answer is not right.
        overwrite: Replace an existing output.

    Raises:
        UsageError: The output exists, has another suffix or is the data itself, or the bounds cross.
        DataError: A file cannot be read, is not the data that was predicted on, holds test images of MVTec LOCO AD, or
            no pair is left.
    """
    if out.suffix != ".parquet":
        raise UsageError("the name must end in .parquet, from which trainers infer the type", where=f"--out {out}")
    with locked(out), ExitStack() as stack:
        require_absent(out, overwrite=overwrite)
        source = data or data_of(predictions)
        if source.resolve() in {out.resolve(), out.resolve().parent}:
            raise UsageError("this is the training data itself", where=f"--out {out}", remedy="Choose another name")
        stack.enter_context(unchanged(lambda: [*parquet_files(source), predictions]))
        truths = read_truths(source)
        for dataset in sorted({truth.dataset for truth in truths}):
            paths = (truth.query_path for truth in truths if truth.dataset == dataset)
            refuse_test_image(dataset, paths, where=source)
        pairs = read_difficulty(read_system(predictions, source, "all"))
        kept = mixed_pairs(pairs, min_share=min_share, max_share=max_share)
        if not kept:
            remedy = "Sample more answers, raise the temperature, or widen the bounds"
            raise DataError(f"no pair of {len(pairs)} has mixed answers", where=predictions, remedy=remedy)
        manifest = _describe(pairs, kept, source, predictions, out)
        manifest["bounds"] = {"min_share": min_share, "max_share": max_share}
        with replace_when_done(out) as draft:
            rows = _write(draft, source, {pair.pair_id for pair in kept})
            manifest |= {"rows": rows, "counts": nest_counts(count_rows(iter_provenance([draft])))}
            write_json(description_files(out)[0], manifest)
    return manifest


def _describe(
    pairs: Sequence[PairDifficulty], kept: Sequence[PairDifficulty], source: Path, predictions: Path, out: Path
) -> dict[str, Any]:
    samples = min(pair.samples for pair in pairs)
    steps = [k for k in (1, 2, 4, 8, 16, 32, 64) if k < samples] + [samples]
    digest = file_sha256(predictions)
    licences = read_object(description_files(source)[0]).get("licences")
    return {
        "builder": "lad filter",
        "files": [out.name],
        "data": {"name": source.name, "sha256": data_sha256(source)},
        "predictions": {"name": predictions.name, "sha256": digest},
        "samples": samples,
        "pairs": len(pairs),
        "all_right": sum(pair.right == pair.samples for pair in pairs),
        "none_right": sum(pair.right == 0 for pair in pairs),
        "pass_at": {str(k): pass_at(pairs, k) for k in steps},
        "majority_at": {str(k): majority_at(pairs, k) for k in steps},
        "pass_at_kept": {str(k): pass_at(kept, k) for k in steps},
        "licences": licences if isinstance(licences, dict) else {},
        "versions": versions(),
    }


def _write(draft: Path, source: Path, kept: set[str]) -> int:
    """Copy the rows of the kept pairs, as they are, one batch at a time."""
    files = parquet_files(source)
    with open_parquet(files[0]) as first:
        writer = RowWriter(draft, first.schema_arrow)
    for row in chain.from_iterable(map(iter_rows, files)):
        if row["pair_id"] in kept:
            size = sum(len(image["bytes"] or b"") for image in row["images"] if isinstance(image, dict))
            writer.write(row, image_bytes=size)
    writer.close()
    return writer.rows
