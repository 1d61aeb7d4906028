"""`lad demo`: the whole chain on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_reasoner.support.console import echo, print_all

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this package's verbs to `lad`."""
    app.command("demo")(demo)


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the demonstration.")] = Path("demo-out"),
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed of the data, the trainers and the sampled answers.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead of the table.")] = False,
) -> None:
    """Run the paper's chain on a CPU: synthetic images, SFT, GRPO, and a report on the four variants of a tiny model.

    This takes five to ten minutes on two idle cores. If interrupted, run the same command again to continue.

    Example: lad demo --out demo-out
    """
    from lad_rehearsal.demo.chain import SEED
    from lad_rehearsal.demo.run import next_steps, run_demo

    summary = run_demo(out, seed=SEED if seed is None else seed)
    if as_json:
        import json

        typer.echo(json.dumps(summary, indent=1))
    else:
        from lad_rehearsal.demo.summary import reasoning_table, results_table

        print_all([results_table(summary), reasoning_table(summary)])
        for line in next_steps(out):
            echo(line)
