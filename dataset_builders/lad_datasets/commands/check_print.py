"""Reports of `lad check`, printed: tables on stdout, errors and warnings on stderr."""

from __future__ import annotations

from collections.abc import Sequence

from lad_datasets.checks.check import CheckReport, Table
from lad_reasoner.support.console import echo, print_json
from lad_reasoner.support.findings import count_findings
from lad_reasoner.support.visible import visible

__all__ = ["layout_table", "print_reports"]


def print_reports(reports: Sequence[CheckReport], *, as_json: bool) -> None:
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
