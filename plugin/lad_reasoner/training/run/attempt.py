"""One start of a trainer: its folder, the record of it while it runs, its process, and what is said when it fails.

Each start of a run is an attempt with a folder of its own, ``<checkpoint folder>/attempts/<n>``. A run and a rehearsal
are started alike.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import RunError
from lad_reasoner.support.processes import end_run, started
from lad_reasoner.training.metrics import attempts_of
from lad_reasoner.training.run.failures import last_error
from lad_reasoner.training.run.progress import Progress

__all__ = [
    "CONFIG_COPY",
    "RAW_LOG",
    "Command",
    "describe_failure",
    "end_forgotten",
    "follow",
    "next_attempt",
    "recorded",
]

RAW_LOG: Final = "trainer.log"
CONFIG_COPY: Final = "easyr1.yaml"
_RECORD: Final = "attempt.json"

#: Seconds between two looks at a process and its logs.
_POLL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Command:
    """What the trainer is started with.

    Attributes:
        words: The command line.
        on_cpu: Whether the CPU runtime is used.
    """

    words: list[str]
    on_cpu: bool

    def __str__(self) -> str:
        return " ".join(shlex.quote(word) for word in self.words)


def next_attempt(run_dir: Path) -> Path:
    """Return the folder of a run's next attempt; it is not made."""
    return run_dir / "attempts" / f"{len(attempts_of(run_dir)) + 1:03}"


@contextmanager
def recorded(attempt: Path, command: Command, folder: Path) -> Iterator[None]:
    """Keep on disk what runs inside the block, for `end_forgotten`; every process of it ends with the block.

    Args:
        attempt: Its folder; the command stays there.
        command: What runs.
        folder: The run's folder for Ray, which marks its processes.
    """
    record = {"command": command.words, "folder": str(folder), "process": os.getpid()}
    (attempt / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    (attempt / "command.txt").write_text(f"{command}\n", encoding="utf-8")
    try:
        yield
    finally:
        end_run(folder)
        (attempt / _RECORD).unlink(missing_ok=True)


def end_forgotten(run_dir: Path) -> None:
    """End what a killed `easyr1` of this run left running: two trainers must not write to one folder."""
    for record in run_dir.glob(f"attempts/*/{_RECORD}"):
        with suppress(ValueError, KeyError):
            folder = Path(json.loads(record.read_text(encoding="utf-8"))["folder"])
            end_run(folder)
            shutil.rmtree(folder, ignore_errors=True)
        record.unlink(missing_ok=True)


def follow(words: Sequence[str], environment: Mapping[str, str], log: Path, progress: Progress | None = None) -> int:
    """Run a command to its end, with all that it says in a log, and return its exit code (negative: a signal)."""
    with log.open("wb") as sink, started(words, environment=environment, log=sink) as process:
        while (code := process.poll()) is None:
            time.sleep(_POLL)
            if progress:
                progress.update()
    if progress:
        progress.update()
    return code


def describe_failure(where: str, code: int, log: Path, *, remedy: str) -> RunError:
    """Return the error of a process that failed; its exit code is that of a shell.

    Args:
        where: What failed.
        code: As `follow` returns it.
        log: All that it said.
        remedy: What to do, beside looking at the log.
    """
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        how += " (out of memory?)"
    error = RunError(where, found=f"{how}: {last_error(log)}", remedy=f"see {log}; {remedy}")
    error.exit_code = 128 - code if code < 0 else code
    return error
