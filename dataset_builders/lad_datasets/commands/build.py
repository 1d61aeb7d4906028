"""`lad build`, and the registration of this package's verbs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lad_datasets.commands.annotate import annotate
from lad_datasets.commands.check import check
from lad_datasets.commands.download import download_command
from lad_datasets.commands.filter import filter_command
from lad_datasets.commands.init import init_command
from lad_datasets.commands.pair_options import Defect, LocoGuard, Mvtec, Normal, Visa, takes_pair_options
from lad_datasets.commands.review import review
from lad_reasoner.support.console import echo, print_json
from lad_reasoner.support.visible import visible

if TYPE_CHECKING:
    from lad_datasets.builders.options import Options

__all__ = ["print_counts", "register"]

build = typer.Typer(no_args_is_help=True, help="Build training and evaluation data from dataset folders.")


def register(app: typer.Typer) -> None:
    """Add this package's verbs to `lad`."""
    for entry in entry_points(group="lad_datasets.build_commands"):
        build.command(entry.name)(entry.load())
    app.add_typer(build, name="build")
    for verb in (check, annotate, review):
        app.command()(verb)
    app.command("filter")(filter_command)
    app.command("init")(init_command)
    app.command("download")(download_command)


Out = Annotated[Path, typer.Option(help="Parquet to write; with --shard-mb, a folder.", show_default=False)]
Limit = Annotated[int | None, typer.Option(min=1, help="Use at most this many queries, sampled with the seed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")]
ValFraction = Annotated[
    float, typer.Option(help="Share of the images of each category to write to <out>_val instead.")
]


@build.command()
@takes_pair_options
def grpo(
    *,
    out: Out,
    mvtec: Mvtec = None,
    visa: Visa = None,
    folder: Annotated[
        Path | None, typer.Option(help="Your own: <category>/{train/good,test/{good,<defect>}}.")
    ] = None,
    normal: Normal = None,
    defect: Defect = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="paper, paper-kinds, logical, all, or your own YAML file. [default: paper; all for --folder alone]"
        ),
    ] = None,
    balance: Annotated[
        bool, typer.Option("--balance", help="As many normal as anomalous queries in each category.")
    ] = False,
    val_fraction: ValFraction = 0.0,
    limit: Limit = None,
    loco: LocoGuard = None,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Pair test images with normal references, for GRPO.

    Example: lad build grpo --mvtec mvtec_ad --visa visa --out grpo.parquet --max-pixels 401408
    """
    from lad_datasets.api import build_grpo

    built = build_grpo(
        out,
        mvtec=mvtec,
        visa=visa,
        folder=folder,
        recipe=recipe,
        balance=balance,
        val_fraction=val_fraction,
        normal=normal or (),
        defect=defect or (),
        limit=limit,
        loco=loco,
        options=options,
    )
    _print(built.manifest, out, held_out=val_fraction > 0, as_json=as_json)


@build.command()
@takes_pair_options
def loco(
    *,
    root: Annotated[Path, typer.Option(help="MVTec LOCO AD tree.", show_default=False)],
    out: Out,
    subset: Annotated[
        Literal["logical", "all"], typer.Option(help="logical: without structural anomalies, as the paper.")
    ] = "logical",
    shots: Annotated[int, typer.Option(min=1, help="References per pair.")] = 1,
    votes: Annotated[int, typer.Option(min=1, help="Pairs per query, each with other references, for voting.")] = 1,
    limit: Limit = None,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Pair MVTec LOCO AD's test images with normal references, for evaluation.

    Example: lad build loco --root mvtec_loco --out loco.parquet
    """
    from lad_datasets.builders.loco import build_loco

    options = replace(options, shots=shots, votes=votes)
    _print(build_loco(root, out, options, subset=subset, limit=limit), out, as_json=as_json)


@build.command()
@partial(takes_pair_options, images="path")
def mmad(
    *,
    root: Annotated[Path, typer.Option(help="MMAD's folder: mmad.json and the datasets.", show_default=False)],
    out: Out,
    shots: Annotated[int, typer.Option(min=1, help="References per question.")] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use at most this many images, sampled with the seed.")
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="Questions about MVTec AD and VisA alone, to train on.")
    ] = False,
    val_fraction: ValFraction = 0.0,
    loco: LocoGuard = None,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Pair MMAD's multiple-choice questions with the normal images it names, for evaluation or for training.

    Images are stored as paths by default: each is asked about some five times. --reference random and nearest are
    MMAD's random and similar templates.

    Example: lad build mmad --root MMAD --out mmad.parquet
    """
    from lad_datasets.builders.mmad import build_mmad

    options = replace(options, shots=shots)
    manifest = build_mmad(root, out, options, limit=limit, training=training, val_fraction=val_fraction, loco=loco)
    _print(manifest, out, held_out=val_fraction > 0, as_json=as_json)


@build.command()
def sft(
    *,
    annotations: Annotated[
        Path, typer.Option(help="annotations.jsonl, or the folder it lies in.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder to make: LLaMA-Factory's dataset_dir.", show_default=False)],
    rows: Annotated[
        int,
        typer.Option(
            min=0, help="Rows of MVTec AD and VisA to keep, sampled with the seed; 0 for all. 2731: the paper's."
        ),
    ] = 2731,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep anomalous images of this kind only, such as appearance, the paper's focus; repeatable."
        ),
    ] = None,
    val_fraction: Annotated[float, typer.Option(help="Share of the images to hold out for validation.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Random seed of the rows and of the held-out images.")] = 0,
    loco: LocoGuard = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip annotations with an unreadable image.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier build.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn annotations into a LLaMA-Factory dataset folder.

    Example: lad build sft --annotations qa/ --out sft/ --val-fraction 0.05
    """
    from lad_datasets.builders.sft import build_sft

    manifest = build_sft(
        annotations,
        out,
        rows=rows or None,
        kinds=kinds or (),
        val_fraction=val_fraction,
        seed=seed,
        loco=loco,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )
    _print(manifest, out, as_json=as_json)


def _print(manifest: Mapping[str, Any], out: Path, *, as_json: bool, held_out: bool = False) -> None:
    """Print what was built: the manifest as JSON, or a table of the counts; the paths, rows and findings as notes."""
    if as_json:
        print_json(manifest)
        return
    print_counts(manifest["counts"])
    findings = ", ".join(f"{kind} {count}" for kind, count in manifest["findings"].items())
    rows = sum(count["rows"] for count in manifest["counts"])
    echo(
        f"{visible(str(out), one_line=True)}: {rows} rows" + (f"; findings: {findings}" if findings else ""), err=True
    )
    if held_out:
        from lad_datasets.builders.grpo import validation_path

        echo(f"held out: {visible(str(validation_path(out)), one_line=True)}", err=True)
    target = manifest.get("target")
    if target and target["reason"]:
        found = f"{target['kept']} rows of MVTec AD and VisA, not {target['wanted']}"
        echo(f"note: {found}: {target['reason']}", err=True)


def print_counts(counts: Sequence[Mapping[str, object]]) -> None:
    """Print the counts: an aligned table with a heading on a terminal, else tab-separated lines."""
    if counts and sys.stdout.isatty():
        from lad_datasets.checks.check import Table
        from lad_datasets.commands.check import layout_table

        echo(layout_table(Table("built", tuple(counts[0]), tuple(tuple(count.values()) for count in counts))))
        return
    for count in counts:
        echo("\t".join(visible(str(value), one_line=True) for value in count.values()))
