"""`lad check` of a trainer's config: EasyR1's, with the checks that `easyr1 check` makes, and LLaMA-Factory's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lad_datasets.checks.check import CheckOptions, CheckReport, add_finding

if TYPE_CHECKING:
    from lad_reasoner.support.findings import Finding

__all__ = ["check_config", "check_sft_config"]


def check_config(path: Path, options: CheckOptions) -> CheckReport:  # noqa: ARG001 - the config says it all
    """Check an EasyR1 config."""
    from lad_reasoner.training.easyr1.config import load_config, read_keys
    from lad_reasoner.training.installed import find_trainer
    from lad_reasoner.training.preflight import run_checks

    trainer = find_trainer()
    return _report(path, "EasyR1 config", run_checks(load_config([f"config={path}"], read_keys(trainer)), trainer))


def check_sft_config(path: Path, options: CheckOptions) -> CheckReport:  # noqa: ARG001 - the config says it all
    """Check a LLaMA-Factory config."""
    from lad_reasoner.training.preflight.sft_config import check_sft

    return _report(path, "LLaMA-Factory config", check_sft(path))


def _report(path: Path, kind: str, findings: Iterable[Finding]) -> CheckReport:
    report = CheckReport(path, kind)
    for finding in findings:
        add_finding(report, finding)
    return report
