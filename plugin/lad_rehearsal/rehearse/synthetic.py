"""Drawn pairs in the place of a config's data, by the `lad` command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import RunError

__all__ = ["draw_pairs"]

#: Few, and of the default size: what the embedded model answers in the template, so that there is a reward to learn.
_DRAW: Final = ("--train", "4", "--test", "16", "--loco-test", "12", "--sft", "1")


def draw_pairs(folder: Path) -> dict[str, str]:
    """Draw datasets, pair them, and return the paths for ``data.train_files`` and ``data.val_files``.

    Args:
        folder: Where to; it must not exist.

    Raises:
        RunError: `lad build` failed.
    """
    train, val = folder / "grpo.parquet", folder / "loco.parquet"
    trees = ("--mvtec", f"{folder}/mvtec_ad", "--visa", f"{folder}/visa")
    _lad("build", "synthetic", "--out", str(folder), *_DRAW)
    _lad("build", "grpo", *trees, "--recipe", "all", "--limit", "64", "--out", str(train))
    _lad("build", "loco", "--root", f"{folder}/mvtec_loco", "--limit", "32", "--out", str(val))
    return {"data.train_files": str(train), "data.val_files": str(val)}


def _lad(*words: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "lad_reasoner.commands.lad", *words], capture_output=True, text=True, check=False
    )
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise RunError(f"lad {' '.join(words[:2])}", found=f"exit code {run.returncode}: {last}")
