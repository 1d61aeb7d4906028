"""What the verbs on predictions share: their options, how they read systems, and how they print."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lad_reasoner.support.console import echo
from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.visible import visible

if TYPE_CHECKING:
    from lad_reasoner.evaluation.outcomes import System
    from lad_reasoner.evaluation.score import RunScore

__all__ = ["note_ids", "print_warnings", "read_systems", "require_masks", "split_pair"]

Predictions = Annotated[list[Path] | None, typer.Argument(help="Files written by `lad predict`.")]
External = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FILE.csv of another system: pair_id or path, and score or text. Repeatable."),
]
Threshold = Annotated[
    list[str] | None,
    typer.Option(
        help="A score of an external system above it is a yes: a number, f1-max:SPLIT or quantile:SHARE:SPLIT (chosen "
        "on the CSV's rows in the folder SPLIT); NAME=... for one system. Default: 0.5, for scores from 0 to 1."
    ),
]
Data = Annotated[Path | None, typer.Option(help="The pair parquet. Default: the one that the run card names.")]
Resamples = Annotated[int, typer.Option(min=1, max=1_000_000, help="Bootstrap samples of every interval.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed of the bootstrap.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def split_pair(text: str, form: str, *, option: str) -> tuple[str, str]:
    """Return both sides of ``A=B``.

    Raises:
        UsageError: One is missing; the message shows the ``form``.
    """
    left, _, right = text.partition("=")
    if not (left and right):
        raise UsageError(f"{text!r} is not {form}", where=option)
    return left, right


def require_masks(masks: Path | None) -> None:
    """Raise if a root of masks is given and absent, before any work."""
    if masks is not None and not masks.is_dir():
        raise UsageError(f"there is no folder {masks}", where="--masks", remedy="Give the dataset's root")


def read_systems(
    predictions: Sequence[Path],
    external: Sequence[str],
    data: Path | None,
    protocol: Literal["paper", "all"],
    thresholds: Sequence[str],
) -> list[System]:
    """Read every system and report on stderr what cannot be scored and how thresholds were chosen."""
    from lad_reasoner.evaluation.outcomes import run_names
    from lad_reasoner.evaluation.score import read_system

    names = run_names(predictions)
    systems = [read_system(path, data, protocol, name=name) for path, name in zip(predictions, names, strict=True)]
    systems += _read_externals(external, data, protocol, thresholds)
    for system in systems:
        note_ids(system.name, system.missing, "pairs without a reply; not scored")
        note_ids(system.name, system.unknown, "unknown pairs")
        for note in system.notes:
            echo(visible(f"{system.name}: {note}", one_line=True), err=True)
    return systems


def _read_externals(
    named: Sequence[str], data: Path | None, protocol: Literal["paper", "all"], thresholds: Sequence[str]
) -> list[System]:
    from lad_reasoner.evaluation.external import read_external

    files: dict[str, Path] = {}
    for item in named:
        name, path = split_pair(item, "NAME=FILE.csv", option="--external")
        if name in files:
            raise UsageError(f"{name} is given a second time; each system needs its own name", where="--external")
        files[name] = Path(path)
    limits = _read_thresholds(thresholds, files)
    if files and data is None:
        raise UsageError("--external needs --data, the pair parquet that holds the truth")
    return [
        read_external(name, path, data, protocol, threshold=limits.get(name, limits.get("")))
        for name, path in files.items()
        if data is not None
    ]


def _read_thresholds(words: Sequence[str], names: Collection[str]) -> dict[str, float | str]:
    """Return the threshold of each system that has its own, and under an empty name the one for all others."""
    from lad_reasoner.evaluation.external import read_rule

    given: dict[str, float | str] = {}
    for word in words:
        name, _, rule = word.rpartition("=")
        if name and name not in names:
            known = ", ".join(names) or "none"
            raise UsageError(f"{name!r} is not an --external system; these are: {known}", where="--threshold")
        given[name] = read_rule(rule)
    return given


def note_ids(name: str, ids: Sequence[str], what: str) -> None:
    """Print on stderr how many ids there are, and the first three."""
    if ids:
        shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        echo(visible(f"{name}: {len(ids)} {what}: {shown}", one_line=True), err=True)


def print_warnings(runs: Iterable[RunScore]) -> None:
    """Warn of runs most of whose replies cannot be judged."""
    from lad_reasoner.evaluation.headline import warn_of_replies

    for run in runs:
        for warning in warn_of_replies(run):
            echo(f"warning: {warning}", err=True)
