"""`lad check` of an SFT folder: LLaMA-Factory reads every row, every image decodes, nothing leaks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lad_datasets.checks.check import CheckOptions, CheckReport, add_finding, count_table
from lad_datasets.files.images import load, load_bytes, sha256
from lad_datasets.files.sft_folder import DATASET_INFO, sft_files
from lad_datasets.leakage.guard import Guard, refuse_test_image
from lad_reasoner.support.errors import DataError
from lad_reasoner.training.preflight.sft_data import check_data, find_image, iter_examples

__all__ = ["check_sft_folder"]


def check_sft_folder(path: Path, options: CheckOptions) -> CheckReport:
    """Check the folder that `lad build sft` wrote, or one of its files, in full.

    Lengths depend on the training config, whose own check measures them; here only ``max_prompt_length`` bounds them.
    """
    report = CheckReport(path, "SFT folder" if path.is_dir() else "SFT data")
    folder = path if path.is_dir() else path.parent
    files = sft_files(folder)
    names = [name for name, file in files.items() if path.is_dir() or path.name in {file, DATASET_INFO}]
    config: dict[str, Any] = {"dataset_dir": folder, "cutoff_len": options.max_prompt_length or sys.maxsize}
    if options.model_pixels:
        config["image_max_pixels"] = options.model_pixels
    for finding in check_data({**config, "dataset": ",".join(names) or "lad_sft"}, max_rows=None):
        add_finding(report, finding)
    if not report.errors:
        _check_rows(folder, {name: folder / files[name] for name in names}, options, report)
    return report


def _check_rows(folder: Path, files: dict[str, Path], options: CheckOptions, report: CheckReport) -> None:
    guard = Guard(options.loco, workers=options.workers) if options.loco else None
    counts: Counter[tuple[str, ...]] = Counter()
    seen: set[object] = set()
    for name, file in files.items():
        for number, row in enumerate(iter_examples(file), start=1):
            counts[name, *(str(row.get(key, "")) for key in ("dataset", "category", "kind"))] += 1
            for fault in _faults(row, folder, guard, seen):
                report.errors.append(f"{name}: row {number}: {fault}")
    report.tables.append(count_table("rows", ("file", "dataset", "category", "kind", "rows"), counts))
    report.facts = {"rows": counts.total()}


def _faults(row: dict[str, Any], folder: Path, guard: Guard | None, seen: set[object]) -> Iterator[DataError]:
    """Yield what is wrong with the images of a row; each image is read once."""
    for image in row.get("images") or []:
        name, data = (image.get("path"), image.get("bytes")) if isinstance(image, dict) else (image, None)
        path = find_image(str(name), folder)
        if (key := sha256(data) if data else path) in seen:
            continue
        seen.add(key)
        try:
            refuse_test_image(str(row.get("dataset", "")), [str(name)], where=name)
            loaded = load_bytes(data, name) if data else load(path)
            if guard is not None:
                guard.check(loaded.data, name)
        except DataError as fault:
            yield fault
