"""`lad plot`: GRPO runs in, one folder of pictures out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from lad_reasoner.support.console import echo, print_all

__all__ = ["plot_command"]

#: Narrow headings of the table.
_HEADINGS: Final = {"response_length": "length", "kl": "KL"}


def plot_command(
    runs: Annotated[
        list[str], typer.Argument(help="Checkpoint folders of GRPO runs, each as FOLDER or LABEL=FOLDER.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the pictures; it is made if it is missing.")] = Path("plots"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the last values as JSON, not as a table.")] = False,
) -> None:
    """Plot reward, accuracy, F1 per category, response length, KL and diagnostics of GRPO runs, as SVG and PNG.

    Reads EasyR1's and verl's logs, also during the run.

    Example: lad plot without-SFT=runs/grpo/qwen2_5_vl_3b_loco with-SFT=runs/grpo/qwen2_5_vl_3b_sft_grpo --out plots
    """
    from lad_reasoner.report.training_curves import last_values, read_runs, write_plots
    from lad_reasoner.training.metrics import DIAGNOSTICS

    read = read_runs(runs)
    files = write_plots(read, out)
    values = {run.label: last_values(run) for run in read}
    if as_json:
        print(json.dumps({"files": list(map(str, files)), "runs": values}, indent=1))
        return
    shown = {label: {name: row[name] for name in row if name not in DIAGNOSTICS} for label, row in values.items()}
    _print_table(shown)
    for path in files:
        echo(path)


def _print_table(values: dict[str, dict[str, float | None]]) -> None:
    from rich.table import Table

    table = Table("run", box=None, pad_edge=False)
    for name in next(iter(values.values())):
        table.add_column(_HEADINGS.get(name, name.replace("val/", "val ")), justify="right", no_wrap=True)
    for label, row in values.items():
        table.add_row(label, *(_shown(name, value) for name, value in row.items()))
    print_all([table])


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:.0f}" if name in {"steps", "response_length"} else f"{value:.3f}"
