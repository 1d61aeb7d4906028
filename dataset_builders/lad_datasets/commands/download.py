"""`lad download`: a dataset from its publisher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["download_command"]


def download_command(
    name: Annotated[
        Literal["mvtec-ad", "visa", "mvtec-loco", "mmad"], typer.Argument(help="The dataset.", show_default=False)
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder to make: the dataset's root.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licence without being asked.")] = False,
    url: Annotated[str | None, typer.Option(help="Another address of the same archive, such as a mirror.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum of the archive. Default: the published one.")] = None,
) -> None:
    """Download a dataset, verify it, and unpack it into the layout that the builders read.

    Run the same command again to continue an interrupted download.

    Example: lad download mvtec-loco --out mvtec_loco
    """
    from lad_datasets.download.datasets import DATASETS
    from lad_datasets.download.download import download
    from lad_reasoner.support.console import echo
    from lad_reasoner.support.errors import UsageError

    dataset = DATASETS[name]
    echo(f"{dataset.title}, {dataset.gigabytes} GB: {dataset.page}", err=True)
    use = "also for commercial use" if dataset.licence.commercial else "not for commercial use"
    echo(f"Licence: {dataset.licence.name}, {use}: {dataset.licence.url}", err=True)
    if not (sha256 or dataset.sha256):
        echo("No source states a checksum of this archive: only its length is verified.", err=True)
    if not yes:
        sys.stderr.write("Do you accept the licence? [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline() if sys.stdin else ""  # None where the caller closed it
        if answer.strip().lower() not in {"y", "yes"}:
            raise UsageError("the licence was not accepted", remedy="Answer y, or pass --yes")
    download(dataset, out, url=url, sha256=sha256)
    echo(out)
    echo(f"Next: {dataset.used_by} {out}", err=True)
