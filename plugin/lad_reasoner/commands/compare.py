"""`lad compare`: paired comparisons of runs."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from typing import Annotated, Literal

import typer

from lad_reasoner.commands import systems as shared
from lad_reasoner.support.console import print_all, print_json

__all__ = ["compare_command"]


def compare_command(
    predictions: shared.Predictions = None,
    *,
    external: shared.External = None,
    threshold: shared.Threshold = None,
    data: shared.Data = None,
    protocol: Annotated[
        Literal["paper", "all"],
        typer.Option(help="paper: normal queries and logical anomalies, as in Table 1; all: structural ones too."),
    ] = "paper",
    rationales: Annotated[bool, typer.Option("--rationales", help="Also compare the reasoning.")] = False,
    resamples: shared.Resamples = 10_000,
    seed: shared.Seed = 0,
    as_json: shared.AsJson = False,
) -> None:
    """Compare models on the same pairs: paired bootstrap, exact McNemar test, Holm's correction.

    Example: lad compare base.jsonl grpo.jsonl --external WinCLIP=winclip.csv --data loco.parquet
    """
    from rich.text import Text

    from lad_reasoner.evaluation.compare import compare_systems, compare_to_constants
    from lad_reasoner.evaluation.outcomes import majority
    from lad_reasoner.evaluation.rationales import compare_rationales
    from lad_reasoner.evaluation.score import score_system
    from lad_reasoner.evaluation.table import LEGEND, compare_table, rationale_comparison, result_table

    systems = shared.read_systems(predictions or [], external or [], data, protocol, threshold or [])
    comparisons = compare_systems(systems, resamples=resamples, seed=seed)
    constants = compare_to_constants(systems, resamples=resamples, seed=seed)
    pairs = list(combinations(systems, 2)) if rationales else []
    names = [(first.name, second.name) for first, second in pairs]
    reasons = [compare_rationales(first, second, resamples=resamples, seed=seed) for first, second in pairs]
    if as_json:
        items = {"comparisons": comparisons, "constants": constants}
        printed = {name: [item.to_dict() for item in group] for name, group in items.items()}
        found = [
            {"first": first, "second": second} | {name: asdict(item) for name, item in reason.items()}
            for (first, second), reason in zip(names, reasons, strict=True)
        ]
        print_json({"protocol": protocol, **printed, "rationales": found})
        return
    voted = [majority(system) if system.votes > 1 else system for system in systems]
    runs = [score_system(system, protocol, resamples=resamples, seed=seed) for system in voted]
    shared.print_warnings(runs)
    print_all(
        [
            result_table(runs, [], paper=False),
            Text(LEGEND),
            compare_table(comparisons, "Paired comparison: A minus B, percent points [95% interval]"),
            compare_table(constants, "Against a constant answer (a family of its own in Holm's correction)"),
            *([rationale_comparison(names, reasons)] if reasons else []),
        ]
    )
