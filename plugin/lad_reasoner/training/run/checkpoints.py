"""A run's checkpoints on disk, as EasyR1 and verl lay them out: ``global_step_<n>/actor``, and a tracker file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Final

from lad_reasoner.training.installed import TrainerName

__all__ = ["TRACKERS", "find_last", "remove_old", "step_of"]

_FOLDER: Final = re.compile(r"global_step_(\d+)")

#: The file that names the last complete checkpoint; written after it.
TRACKERS: Final[dict[TrainerName, str]] = {
    "easyr1": "checkpoint_tracker.json",
    "verl": "latest_checkpointed_iteration.txt",
}


def find_last(run_dir: Path, trainer: TrainerName) -> Path | None:
    """Return the checkpoint from which the trainer would resume, or None."""
    tracker = run_dir / TRACKERS[trainer]
    if not tracker.is_file():
        return None
    text = tracker.read_text(encoding="utf-8")
    try:
        step = int(json.loads(text)["last_global_step"] if trainer == "easyr1" else text)
    except (ValueError, KeyError, TypeError):
        return None
    folder = run_dir / f"global_step_{step}"
    return folder if folder.is_dir() else None


def remove_old(run_dir: Path, trainer: TrainerName, limit: int) -> None:
    """Remove all but the newest ``limit`` complete checkpoints of a run, whichever attempt saved them.

    EasyR1 counts the folders itself; verl only knows those that its present process has saved. A limit of 0 or less
    keeps all.
    """
    last = find_last(run_dir, trainer)
    if last is None or limit < 1:
        return
    steps = {int(found[1]): path for path in run_dir.iterdir() if (found := _FOLDER.fullmatch(path.name))}
    complete = sorted(step for step in steps if step <= step_of(last))
    for step in complete[:-limit]:
        shutil.rmtree(steps[step], ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """Return the step of a ``global_step_<n>`` folder.

    Raises:
        ValueError: The folder has another name.

    Example:
        >>> step_of(Path("checkpoints/run/global_step_50"))
        50
    """
    prefix, _, step = checkpoint.name.rpartition("_")
    if prefix != "global_step" or not step.isdigit():
        raise ValueError(f"{checkpoint.name} is not global_step_<n>")
    return int(step)
