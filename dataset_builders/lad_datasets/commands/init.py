"""`lad init`: a project on one's own photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_datasets.commands.pair_options import Defect, Normal

__all__ = ["init_command"]


def init_command(
    photos: Annotated[
        Path,
        typer.Argument(help="Your photos: <product>/{train/good,test/{good,<defect>}}.", show_default=False),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
    evaluation: Annotated[
        float, typer.Option(help="Share of the test images of each product and label to evaluate on.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
    normal: Normal = None,
    defect: Defect = None,
) -> None:
    """Start a project on your own photos: a training and an evaluation part, configs, and a plan of commands.

    Example: lad init my_products --out my_project
    """
    from lad_datasets.project.project import create_project
    from lad_datasets.sources.folder_names import FolderNames
    from lad_reasoner.support.console import echo

    names = FolderNames(normal or (), defect or ())
    project = create_project(photos, out, evaluation=evaluation, seed=seed, names=names)
    for part, counts in project.counts.items():
        echo(f"{part}\t{counts['no']} normal and {counts['yes']} anomalous test images", err=True)
    echo("Next, run the commands of this page:", err=True)
    echo(project.plan)
