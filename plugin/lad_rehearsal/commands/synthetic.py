"""`lad build synthetic`: mounted by ``lad_datasets.commands.build``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["synthetic"]


def synthetic(
    *,
    out: Annotated[Path, typer.Option(help="Folder to write; it must be empty or not exist.")],
    seed: Annotated[int, typer.Option(min=0, help="Random seed; the same seed and sizes give the same bytes.")] = 0,
    size: Annotated[int, typer.Option(min=42, max=2100, help="Edge of an image in pixels, a multiple of 3.")] = 84,
    train: Annotated[int, typer.Option(min=1, help="Normal training images per category.")] = 8,
    test: Annotated[int, typer.Option(min=16, help="Test images per category of the MVTec AD and VisA trees.")] = 40,
    loco_test: Annotated[
        int, typer.Option(min=12, help="Normal and logically anomalous test images per category of the LOCO tree.")
    ] = 40,
    sft: Annotated[int, typer.Option(min=1, help="Questions and answers for SFT.")] = 400,
) -> None:
    """Render synthetic datasets in the layouts of MVTec AD, VisA and MVTec LOCO AD, and QA for SFT.

    Example: lad build synthetic --out synthetic --seed 0 --loco-test 220
    """
    from lad_reasoner.support.console import echo, make_console
    from lad_reasoner.support.errors import UsageError
    from lad_reasoner.support.files import hidden_sibling, locked, name_write_errors
    from lad_rehearsal.synthetic.trees import Sizes, draw_trees

    if size % 3:
        raise UsageError(f"{size} is not a multiple of 3", where="--size")
    sizes = Sizes(train=train, test=test, loco_test=loco_test, sft=sft, pixels=size)
    draft = hidden_sibling(out, "draft")
    with locked(out), name_write_errors(out), make_console(err=True).status("rendering") as status:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError("the folder is not empty", where=out, remedy="Choose another folder with --out")
        shutil.rmtree(draft, ignore_errors=True)  # of a killed process
        try:
            counts = draw_trees(draft, seed=seed, sizes=sizes, report=lambda name: status.update(f"rendering {name}"))
            out.mkdir(exist_ok=True)
            for part in draft.iterdir():
                part.replace(out / part.name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    for name, count in counts.items():
        echo(f"{out / name}\t{count}")
