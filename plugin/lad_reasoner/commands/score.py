"""Verbs of `lad` that belong to evaluation."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lad_reasoner.support.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from lad_reasoner.evaluation.outcomes import System
    from lad_reasoner.evaluation.score import RunScore

__all__ = ["register"]

Predictions = Annotated[list[Path] | None, typer.Argument(help="Files written by `lad predict`.")]
External = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FILE.csv of another system: pair_id or path, and score or text; may be given again."),
]
Threshold = Annotated[
    list[str] | None,
    typer.Option(help="An external score above it is a yes: a number, or NAME=NUMBER for one system. Default: 0.5."),
]
Data = Annotated[Path | None, typer.Option(help="The pair parquet. Default: what the run card names.")]
Resamples = Annotated[int, typer.Option(min=1, max=1_000_000, help="Bootstrap samples of every interval.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
ProtocolOption = Annotated[
    Literal["paper", "all"],
    typer.Option(help="paper: normal queries and logical anomalies, as Table 1; all: structural anomalies too."),
]


def register(app: typer.Typer) -> None:
    """Add this package's verbs to `lad`."""
    app.command("score")(score_command)
    app.command("compare")(compare_command)


def score_command(
    predictions: Predictions = None,
    *,
    external: External = None,
    threshold: Threshold = None,
    data: Data = None,
    protocol: Annotated[
        Literal["paper", "all", "mmad"],
        typer.Option(
            help="paper: normal queries and logical anomalies, as Table 1; all: structural anomalies too; "
            "mmad: the questions of `lad build mmad`."
        ),
    ] = "paper",
    by: Annotated[
        Literal["kind", "defect"] | None, typer.Option(help="Also print right answers by kind or by defect.")
    ] = None,
    paper: Annotated[bool, typer.Option(help="Print the paper's rows above ours.")] = True,
    resamples: Resamples = 10_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Score predictions: accuracy, F1, AUROC and more, per category, pooled and macro, with 95% intervals.

    Example: lad score base.jsonl sft.jsonl grpo.jsonl --by defect
    """
    if protocol == "mmad":
        if external or by or not predictions:
            raise UsageError("--protocol mmad", found="--external, --by or no file", expected="files of predictions")
        _score_choices(predictions, data, resamples=resamples, seed=seed, as_json=as_json)
        return

    from lad_reasoner.evaluation.score import score_outcomes
    from lad_reasoner.evaluation.table import overview_table, run_table, share_table

    systems = _read_systems(predictions or [], external or [], data, protocol, threshold or [])
    if not systems:
        raise UsageError("lad score", found="nothing to score", expected="predictions, or --external NAME=FILE.csv")
    _note_gaps(systems)
    runs = [score_outcomes(system, protocol, resamples=resamples, seed=seed) for system in systems]
    if as_json:
        _print_json({"protocol": protocol, "runs": [run.to_dict() for run in runs], "paper": _paper_rows()})
        return
    paper = paper and protocol == "paper"
    others = sorted({row.truth.dataset for system in systems for row in system.rows} - {"mvtec_loco"})
    if paper and others:
        typer.echo(f"the paper's rows are of MVTec LOCO AD: those of {', '.join(others)} do not compare", err=True)
    tables = [overview_table(runs, paper=paper), *map(run_table, _with_votes(runs))]
    _print_tables([*tables, share_table(runs, by)] if by else tables)


def compare_command(
    predictions: Predictions = None,
    *,
    external: External = None,
    threshold: Threshold = None,
    data: Data = None,
    protocol: ProtocolOption = "paper",
    resamples: Resamples = 10_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare models on the same pairs: paired bootstrap, exact McNemar test, Holm's correction.

    Example: lad compare base.jsonl grpo.jsonl --external WinCLIP=winclip.csv --data loco.parquet
    """
    from lad_reasoner.evaluation.compare import compare_outcomes
    from lad_reasoner.evaluation.table import compare_table

    systems = _read_systems(predictions or [], external or [], data, protocol, threshold or [])
    _note_gaps(systems)
    comparisons = compare_outcomes(systems, resamples=resamples, seed=seed)
    if as_json:
        _print_json({"protocol": protocol, "comparisons": [item.to_dict() for item in comparisons]})
        return
    _print_tables([compare_table(comparisons)])


def _score_choices(
    predictions: Sequence[Path], data: Path | None, *, resamples: int, seed: int, as_json: bool
) -> None:
    from lad_reasoner.evaluation.mmad import score_choices
    from lad_reasoner.evaluation.table import choice_table

    runs = [score_choices(path, data, resamples=resamples, seed=seed) for path in predictions]
    for run in runs:
        _note_ids(run.name, run.missing, "questions without a reply; not scored")
    if as_json:
        _print_json({"protocol": "mmad", "runs": [run.to_dict() for run in runs]})
        return
    _print_tables([choice_table(run) for run in runs])


def _read_systems(
    predictions: Sequence[Path],
    external: Sequence[str],
    data: Path | None,
    protocol: Literal["paper", "all"],
    thresholds: Sequence[str],
) -> list[System]:
    from lad_reasoner.evaluation.outcomes import run_names
    from lad_reasoner.evaluation.score import read_outcomes

    names = run_names(predictions)
    systems = [read_outcomes(path, data, protocol, name=name) for path, name in zip(predictions, names, strict=True)]
    return systems + _read_externals(external, data, protocol, thresholds)


def _read_externals(
    named: Sequence[str], data: Path | None, protocol: Literal["paper", "all"], thresholds: Sequence[str]
) -> list[System]:
    from lad_reasoner.evaluation.external import read_external

    files = {}
    for item in named:
        name, _, path = item.partition("=")
        if not name or not path:
            raise UsageError("--external", found=repr(item), expected="NAME=FILE.csv")
        if name in files:
            raise UsageError("--external", found=f"{name} a second time", expected="a name of its own for each system")
        files[name] = Path(path)
    limits = _read_thresholds(thresholds, files)
    if not files:
        return []
    if data is None:
        raise UsageError("--external", found="no --data", expected="the pair parquet that says what is true")
    return [read_external(name, path, data, protocol, threshold=limits[name]) for name, path in files.items()]


def _read_thresholds(words: Sequence[str], names: Collection[str]) -> dict[str, float]:
    """Return the threshold of each system: its own, else the one for all, else the paper's."""
    from lad_reasoner.evaluation.external import THRESHOLD

    given: dict[str, float] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        if name and name not in names:
            known = ", ".join(names) or "the name of an --external system"
            raise UsageError("--threshold", found=repr(name), expected=known)
        try:
            given[name] = float(number)
        except ValueError:
            given[name] = math.nan
        if not math.isfinite(given[name]):
            raise UsageError("--threshold", found=repr(word), expected="a finite number, or NAME=NUMBER")
    return {name: given.get(name, given.get("", THRESHOLD)) for name in names}


def _note_gaps(systems: Sequence[System]) -> None:
    """Say on stderr what could not be scored."""
    for system in systems:
        _note_ids(system.name, system.missing, "pairs without a reply; not scored")
        _note_ids(system.name, system.unknown, "unknown pairs")


def _note_ids(name: str, ids: Sequence[str], what: str) -> None:
    if ids:
        shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        typer.echo(f"{name}: {len(ids)} {what}: {shown}", err=True)


def _with_votes(runs: Sequence[RunScore]) -> list[RunScore]:
    return [score for run in runs for score in (run, run.vote) if score is not None]


def _paper_rows() -> list[dict[str, object]]:
    from dataclasses import asdict

    from lad_reasoner.evaluation.paper import TABLE_1

    return [asdict(row) for row in TABLE_1]


def _print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def _print_tables(tables: Sequence[Table]) -> None:
    """Print tables on stdout: in parts that fit a terminal; where it is none, as wide as they need."""
    from rich.console import Console

    from lad_reasoner.evaluation.table import fit_table

    console = Console(markup=False, highlight=False)  # a run may be called "[bold]"
    if not console.is_terminal:
        console.width = 400
    for table in tables:
        for part in fit_table(table, console.width):
            console.print(part)
