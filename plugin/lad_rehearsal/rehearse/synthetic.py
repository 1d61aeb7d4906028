"""Synthetic pairs instead of a config's data, made by the `lad` command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import RunError, UsageError

__all__ = ["make_pairs"]

#: Few images of the default size. The embedded model answers them in the template, so there is a reward to learn.
_SIZES: Final = ("--train", "4", "--test", "16", "--loco-test", "12", "--sft", "1")


def make_pairs(folder: Path, *, prompt: str | None = None) -> dict[str, str]:
    """Render datasets into a new folder, pair them, and return ``data.train_files`` and ``data.val_files``.

    The shipped format prompt of this name decides the form of the gold answers.

    Raises:
        UsageError: There are no synthetic pairs for this format prompt.
        RunError: `lad build` failed.
    """
    if prompt in {"letters", "choice"}:
        raise UsageError("MMAD's questions cannot be made synthetically", where="--synthetic", remedy="Leave it out")
    train, val = folder / "grpo.parquet", folder / "loco.parquet"
    trees: tuple[str, ...] = ("--mvtec", f"{folder}/mvtec_ad", "--visa", f"{folder}/visa")
    form = held_out_form = ("--answers", "classes") if prompt == "classes" else ()
    if prompt == "boxes":  # the masks of one tree
        trees, form, held_out_form = trees[:2], ("--boxes", trees[1]), ("--boxes", f"{folder}/mvtec_loco")
    _lad("build", "synthetic", "--out", str(folder), *_SIZES)
    _lad("build", "grpo", *trees, "--recipe", "all", "--limit", "64", "--out", str(train), *form)
    _lad("build", "loco", "--root", f"{folder}/mvtec_loco", "--limit", "32", "--out", str(val), *held_out_form)
    return {"data.train_files": str(train), "data.val_files": str(val)}


def _lad(*words: str) -> None:
    command = [sys.executable, "-m", "lad_reasoner.commands.lad", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no output"])[-1]
        raise RunError(f"failed with exit code {run.returncode}: {last}", where=f"lad {' '.join(words[:2])}")
