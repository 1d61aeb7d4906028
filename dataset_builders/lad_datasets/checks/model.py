"""`lad check` of a model folder, and its repair."""

from __future__ import annotations

from pathlib import Path

from lad_datasets.checks.check import MODEL, CheckOptions, CheckReport, add_finding
from lad_reasoner.models.compatibility import check_model_folder, repair_model_folder
from lad_reasoner.models.folder import ModelFolder

__all__ = ["check_model"]


def check_model(path: Path, options: CheckOptions) -> CheckReport:
    """Check a model folder; with ``fix``, repair it first and say what was changed."""
    report = CheckReport(path, MODEL)
    if options.fix:
        edits, copies, faults = repair_model_folder(path, max_pixels=options.model_pixels)
        report.fixed = [str(edit) for edit in edits]
        if copies:
            report.facts["kept"] = " ".join(copy.name for copy in copies)
    else:
        faults = check_model_folder(path, max_pixels=options.model_pixels)
    for fault in faults:
        add_finding(report, fault.finding, more="; `--fix` repairs it" if fault.edits and not options.fix else "")
    folder = ModelFolder(path)
    tensors = folder.tensors.values()
    report.facts |= {
        "type": folder.document("config.json").get("model_type", "unknown"),
        "parameters": sum(tensor.size for tensor in tensors),
        "weights": " ".join(sorted({tensor.dtype for tensor in tensors})) or "none",
    }
    return report
