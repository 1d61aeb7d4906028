"""`lad review`: a page on which people judge annotations, and the rates of what they decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `review` to `lad`."""
    app.command()(review)


def review(
    folder: Annotated[Path, typer.Argument(help="What `lad annotate` wrote.", show_default=False)],
    *,
    sample: Annotated[int | None, typer.Option(min=1, help="Show this many pairs, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Of that draw.")] = 0,
    decisions: Annotated[
        list[Path] | None, typer.Option(help="Decisions of a reviewer; twice to compare two. Prints the rates.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Make a page on which people accept, reject or edit annotations; print the rates of what they decided.

    Example: lad review qa --sample 300, then open qa/review/index.html and save its decisions as qa/decisions.jsonl
    """
    from lad_datasets.annotate.review import print_rates, write_page

    if decisions:
        print_rates(folder, decisions, as_json=as_json)
        return
    page, shown = write_page(folder, sample=sample, seed=seed)
    typer.echo(json.dumps({"page": str(page), "pairs": shown}) if as_json else page)
