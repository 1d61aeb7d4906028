"""`lad report`: predictions in, one folder of static files out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lad_reasoner.commands.systems import Data, Resamples, Seed, require_masks, split_pair
from lad_reasoner.support.console import echo
from lad_reasoner.support.errors import UsageError

__all__ = ["report_command"]


def report_command(
    predictions: Annotated[list[Path], typer.Argument(help="Files written by `lad predict`, on one data file.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier report in it is replaced.")],
    data: Data = None,
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
    resamples: Resamples = 10_000,
    seed: Seed = 0,
) -> None:
    """Write a report that opens from disk: scores with intervals, curves, every pair with its reasoning, figures.

    Example: lad report base.jsonl grpo.jsonl --masks mvtec_loco --out report
    """
    require_masks(masks)
    runs = dict(map(_run, training or ()))
    names = None
    if before_after:
        names = split_pair(before_after, "BEFORE=AFTER, such as base=sft", option="--before-after")

    from lad_reasoner.api import write_report

    written = write_report(
        predictions,
        out,
        data=data,
        protocol=protocol,
        masks=masks,
        training=runs,
        pair_id=pair,
        sft=sft,
        before_after=names,
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


def _run(text: str) -> tuple[str, Path]:
    """Return the label and the folder of a GRPO run."""
    label, folder = split_pair(text, "LABEL=FOLDER, such as with-SFT=checkpoints/grpo", option="--training")
    if not Path(folder).is_dir():
        remedy = "Give a GRPO run's checkpoint folder"
        raise UsageError(f"there is no folder {folder}", where="--training", remedy=remedy)
    return label, Path(folder)
