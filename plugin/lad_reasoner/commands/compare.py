"""`lad compare`: paired comparisons of runs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from lad_reasoner.commands.systems import (
    AsJson,
    Data,
    External,
    Predictions,
    Resamples,
    Seed,
    Threshold,
    print_all,
    print_json,
    read_systems,
)

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `compare` to `lad`."""
    app.command("compare")(compare_command)


def compare_command(
    predictions: Predictions = None,
    *,
    external: External = None,
    threshold: Threshold = None,
    data: Data = None,
    protocol: Annotated[
        Literal["paper", "all"],
        typer.Option(help="paper: normal queries and logical anomalies, as in Table 1; all: structural ones too."),
    ] = "paper",
    resamples: Resamples = 10_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare models on the same pairs: paired bootstrap, exact McNemar test, Holm's correction.

    Example: lad compare base.jsonl grpo.jsonl --external WinCLIP=winclip.csv --data loco.parquet
    """
    from rich.text import Text

    from lad_reasoner.evaluation.compare import compare_systems, compare_to_constants
    from lad_reasoner.evaluation.outcomes import majority
    from lad_reasoner.evaluation.score import score_system
    from lad_reasoner.evaluation.table import LEGEND, compare_table, result_table

    systems = read_systems(predictions or [], external or [], data, protocol, threshold or [])
    comparisons = compare_systems(systems, resamples=resamples, seed=seed)
    constants = compare_to_constants(systems, resamples=resamples, seed=seed)
    if as_json:
        values = {"comparisons": comparisons, "constants": constants}
        print_json(
            {"protocol": protocol} | {name: [item.to_dict() for item in items] for name, items in values.items()}
        )
        return
    voted = [majority(system) if system.votes > 1 else system for system in systems]
    runs = [score_system(system, protocol, resamples=resamples, seed=seed) for system in voted]
    print_all(
        [
            result_table(runs, [], paper=False),
            Text(LEGEND),
            compare_table(comparisons, "Paired comparison: A minus B, percent points [95% interval]"),
            compare_table(constants, "Against a constant answer (a family of its own in Holm's correction)"),
        ]
    )
