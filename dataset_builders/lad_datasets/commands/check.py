"""`lad check`: tables on stdout, errors and warnings on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_datasets.commands.pair_options import CORES, LocoGuard
from lad_reasoner.support.console import echo, print_json
from lad_reasoner.support.findings import count_findings
from lad_reasoner.support.visible import visible

if TYPE_CHECKING:
    from lad_datasets.checks.check import CheckReport, Table

__all__ = ["check", "layout_table"]


def check(
    files: Annotated[
        list[Path],
        typer.Argument(help="Pair parquet or folder of shards, annotations, SFT folder, configs, model folder."),
    ],
    *,
    max_pixels: Annotated[int | None, typer.Option(min=784, help="Largest image area in training.")] = None,
    min_pixels: Annotated[int | None, typer.Option(min=1, help="Smallest image area in training.")] = None,
    easyr1: Annotated[bool, typer.Option("--easyr1", help="Scale as EasyR1 does, before the processor.")] = False,
    tokenizer: Annotated[Path | None, typer.Option(help="tokenizer.json or model folder: count text exactly.")] = None,
    max_prompt_length: Annotated[int | None, typer.Option(min=1, help="Longer prompts are errors.")] = None,
    loco: LocoGuard = None,
    fix: Annotated[bool, typer.Option("--fix", help="Repair a model folder's JSON; the original is kept.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Threads.")] = CORES,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Check finished files: schema, images, gold answers, leakage, prompt lengths.

    In a model folder, it finds what one of transformers 4 and 5 wrote and the other misreads.

    Example: lad check grpo.parquet --max-pixels 401408 --tokenizer Qwen2.5-VL-3B-Instruct

    Example: lad check models/sft --max-pixels 401408 --fix
    """
    from lad_datasets.checks.check import CheckOptions, check_files
    from lad_reasoner.pairs.tokens import QWEN2_5_VL

    options = CheckOptions(
        max_pixels=max_pixels or QWEN2_5_VL.max_pixels,
        min_pixels=min_pixels or QWEN2_5_VL.min_pixels,
        easyr1=easyr1,
        tokenizer=tokenizer,
        max_prompt_length=max_prompt_length,
        loco=loco,
        workers=workers,
        fix=fix,
        model_pixels=max_pixels,
    )
    reports = check_files(files, options)
    _print_reports(reports, as_json=as_json)
    if any(report.errors for report in reports):
        raise typer.Exit(1)


def _print_reports(reports: Sequence[CheckReport], *, as_json: bool) -> None:
    """Print each report; the last line of one counts its errors and warnings."""
    if as_json:
        print_json([report.to_json() for report in reports])
        return
    for report in reports:
        for table in report.tables:
            echo(layout_table(table))
        for line in report.fixed:
            echo(visible(f"fixed: {line}", one_line=True), err=True)
        for line in report.warnings:
            echo(visible(f"warning: {line}", one_line=True), err=True)
        for line in report.errors:
            echo(visible(f"error: {line}", one_line=True), err=True)
        facts = "".join(f", {name} {value}" for name, value in report.facts.items())
        verdict = count_findings(len(report.errors), len(report.warnings))
        echo(visible(f"{report.path}: {report.kind}{facts}: {verdict}", one_line=True))


def layout_table(table: Table) -> str:
    """Return a table as text: names to the left, figures to the right."""
    cells = [table.columns, *(tuple(visible(str(value), one_line=True) for value in row) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    figures = [all(isinstance(row[i], int | float) for row in table.rows) for i in range(len(table.columns))]
    lines = [
        "  ".join(
            cell.rjust(width) if figure else cell.ljust(width)
            for cell, width, figure in zip(row, widths, figures, strict=True)
        )
        for row in cells
    ]
    return "\n".join([table.title, *(line.rstrip() for line in lines), ""])
