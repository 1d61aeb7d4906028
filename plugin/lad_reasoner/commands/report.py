"""`lad report`: predictions in, one folder of static files out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lad_reasoner.commands.systems import require_masks
from lad_reasoner.support.console import echo
from lad_reasoner.support.errors import UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `report` to `lad`."""
    app.command("report")(report_command)


def report_command(
    predictions: Annotated[list[Path], typer.Argument(help="Files written by `lad predict`, on one data file.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier report in it is replaced.")],
    data: Annotated[Path | None, typer.Option(help="The pair parquet. Default: what the run card names.")] = None,
    protocol: Annotated[
        Literal["paper", "all"],
        typer.Option(help="paper: normal queries and logical anomalies; all: structural anomalies too."),
    ] = "paper",
    masks: Annotated[
        Path | None, typer.Option(help="Root of MVTec LOCO AD (or MVTec AD): shows where anomalies are.")
    ] = None,
    training: Annotated[
        list[str] | None, typer.Option(help="LABEL=FOLDER of a GRPO run, for figure 5; may be given again.")
    ] = None,
    pair: Annotated[
        str | None, typer.Option(help="pair_id of figures 3 and 7. Default: one on which the models differ.")
    ] = None,
    sft: Annotated[Path | None, typer.Option(help="Folder of `lad build sft`, for figure 2.")] = None,
    before_after: Annotated[
        str | None, typer.Option(help="BEFORE=AFTER: the runs before and after SFT, such as base=sft, for figure 3.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Logical anomaly detection",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Show at most this many pairs, the worst of the first run; scores use all."),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Put everything into index.html; up to 300 pairs.")
    ] = False,
    picture_edge: Annotated[int, typer.Option(min=64, max=2048, help="Longest edge of a picture in pixels.")] = 448,
    image_root: Annotated[
        Path | None, typer.Option(help="Where relative image paths start. Default: the folder of the data.")
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Bootstrap samples of every interval.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Write a report that opens from disk: scores with intervals, curves, every pair with its reasoning, figures.

    Example: lad report base.jsonl grpo.jsonl --masks mvtec_loco --out report
    """
    require_masks(masks)
    runs = [_training(text) for text in training or ()]

    from lad_reasoner.api import write_report

    written = write_report(
        predictions,
        out,
        data=data,
        protocol=protocol,
        masks=masks,
        training=dict(runs),
        pair_id=pair,
        sft=sft,
        before_after=_names(before_after) if before_after else None,
        title=title,
        limit=limit,
        single_file=single_file,
        picture_edge=picture_edge,
        image_root=image_root,
        resamples=resamples,
        seed=seed,
    )
    for note in written.notes:
        echo(note, err=True)
    echo(written.page)


def _names(text: str) -> tuple[str, str]:
    before, separator, after = text.partition("=")
    if not (before and separator and after):
        raise UsageError(f"{text!r} is not BEFORE=AFTER, such as base=sft", where="--before-after")
    return before, after


def _training(text: str) -> tuple[str, Path]:
    label, separator, folder = text.partition("=")
    if not (label and separator and folder):
        raise UsageError(f"{text!r} is not LABEL=FOLDER, such as with-SFT=checkpoints/grpo", where="--training")
    if not Path(folder).is_dir():
        raise UsageError(
            f"there is no folder {folder}", where="--training", remedy="Give a GRPO run's checkpoint folder"
        )
    return label, Path(folder)
