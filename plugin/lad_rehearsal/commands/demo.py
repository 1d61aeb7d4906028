"""`lad demo`: the whole chain on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this package's verbs to `lad`."""
    app.command("demo")(demo)


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for everything the demonstration makes.")] = Path("demo-out"),
    seed: Annotated[int | None, typer.Option(min=0, help="Of the data, the trainers and the sampled answers.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead of the table.")] = False,
) -> None:
    """Run the paper's chain on the CPU: draw data, SFT, GRPO, and score the four variants of a tiny model.

    Takes ten minutes on two idle cores. Stopped, it goes on where it was when it is run again.

    Example: lad demo --out demo-out
    """
    from lad_rehearsal.demo.chain import SEED
    from lad_rehearsal.demo.run import run_demo

    summary = run_demo(out, seed=SEED if seed is None else seed)
    if as_json:
        import json

        typer.echo(json.dumps(summary, indent=1))
    else:
        from rich.console import Console

        from lad_rehearsal.demo.summary import results_table

        Console().print(results_table(summary))
