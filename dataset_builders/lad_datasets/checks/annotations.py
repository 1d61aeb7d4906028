"""`lad check` of annotations: every line fits, every image decodes, nothing leaks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lad_datasets.checks.check import CheckOptions, CheckReport, count_table
from lad_datasets.files.annotations import read_annotations
from lad_datasets.files.images import load
from lad_datasets.leakage.guard import Guard, refuse_test_image
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.findings import Findings

__all__ = ["check_annotations"]


def check_annotations(path: Path, options: CheckOptions) -> CheckReport:
    """Check an annotation file as `lad build sft` will read it.

    Raises:
        DataError: A line does not fit.
    """
    report = CheckReport(path, "annotations")
    findings = Findings(quiet=True)
    folder, annotations = read_annotations(path, findings)
    guard = Guard(options.loco, workers=options.workers) if options.loco else None
    counts: Counter[tuple[str, ...]] = Counter()
    for annotation in annotations:
        counts[annotation.dataset, annotation.category, annotation.writer] += 1
        try:
            refuse_test_image(annotation.dataset, annotation.images, where=annotation.id, root=folder)
        except DataError as fault:
            report.errors.append(str(fault))
    for name in dict.fromkeys(name for annotation in annotations for name in annotation.images):
        try:
            loaded = load(folder / name)
            if guard is not None:
                guard.check(loaded.data, folder / name)
        except DataError as fault:
            report.errors.append(str(fault))
    report.warnings += findings.lines
    report.tables.append(count_table("annotations to keep", ("dataset", "category", "writer", "rows"), counts))
    report.facts = {"rows": len(annotations)}
    return report
