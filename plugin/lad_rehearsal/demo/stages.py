"""A chain of commands that can be interrupted and continued; each stage has a log, an output and a cost record."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from lad_reasoner.support.errors import RunError
from lad_reasoner.support.processes import started
from lad_rehearsal.demo.memory import PeakMemory
from lad_rehearsal.demo.progress import Progress, Timer, in_words

__all__ = ["Stage", "StageRecord", "read_record", "run_stages"]

#: Seconds between two status lines of a running stage if stderr is not a terminal.
QUIET_INTERVAL = 20.0
#: The same on a terminal. Counting reads folders and files, while the stage needs the processor.
SHOWN_INTERVAL = 1.0
#: Seconds that a stage has to end its own processes.
GRACE = 30.0

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the chain.

    Attributes:
        name: Short, unique name of the log and the record.
        title: Title for the status line.
        commands: Commands that do not depend on each other; they run at the same time.
        output: File or folder that a finished stage has written.
        progress: How to measure it.
        expected: Seconds that it takes on two idle cores.
        starts_without: Folder of an unfinished attempt that the commands cannot reuse; it is removed first.
        environment: Environment variables added for the commands.
    """

    name: str
    title: str
    commands: Sequence[Sequence[str]]
    output: Path
    progress: Progress
    expected: float
    starts_without: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageRecord:
    """The cost of a stage: seconds from start to end, and the peak memory (PSS) of all processes together."""

    name: str
    title: str
    seconds: float
    peak_bytes: int
    commands: list[list[str]]


def run_stages(stages: Sequence[Stage], folder: Path, console: Console) -> list[StageRecord]:
    """Run the unfinished stages in order and return every stage's record.

    A stage is finished if its record exists with the same commands, and its output exists. Once a stage runs, every
    later stage runs too, because its input may have changed.

    Raises:
        RunError: A command failed.
    """
    records: list[StageRecord] = []
    fresh = False
    for number, stage in enumerate(stages, start=1):
        prefix = f"[{number}/{len(stages)}] {stage.title}"
        done = None if fresh else read_record(folder, stage)
        if done is None:
            fresh = True
            try:
                done = _run_stage(stage, folder, console, prefix)
            except KeyboardInterrupt:
                _print(console, f"stopped in stage {number} of {len(stages)} ({stage.title})")
                raise
            _print(console, f"{prefix}: {in_words(done.seconds)}, {done.peak_bytes / 2**30:.1f} GiB", style="green")
        else:
            _print(console, f"{prefix}: already done", style="dim")
        records.append(done)
    return records


def _print(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, soft_wrap=True)


def _record_path(folder: Path, stage: Stage) -> Path:
    return folder / "stages" / f"{stage.name}.json"


def read_record(folder: Path, stage: Stage) -> StageRecord | None:
    """Return the record of a finished stage; None when the stage has to run."""
    path = _record_path(folder, stage)
    if not (path.is_file() and stage.output.exists()):
        return None
    try:
        record = StageRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):  # truncated by a kill: run the stage again
        return None
    if not all(isinstance(cost, int | float) and 0 <= cost < 1e15 for cost in (record.seconds, record.peak_bytes)):
        return None
    return record if record.commands == [list(command) for command in stage.commands] else None


def _run_stage(stage: Stage, folder: Path, console: Console, prefix: str) -> StageRecord:
    record_path = _record_path(folder, stage)
    record_path.parent.mkdir(parents=True, exist_ok=True)
    record_path.unlink(missing_ok=True)
    if stage.starts_without is not None:
        shutil.rmtree(stage.starts_without, ignore_errors=True)
    log = record_path.with_suffix(".log")
    environment = {**os.environ, **stage.environment}
    timer = Timer(stage.progress, stage.expected)
    with log.open("a", encoding="utf-8") as stream, PeakMemory(os.getpid()) as memory, ExitStack() as stack:
        stream.truncate(0)  # appended to, because commands that run at the same time share it
        processes = [
            stack.enter_context(started(command, environment=environment, log=stream, grace=GRACE))
            for command in stage.commands
        ]
        _wait(processes, console, prefix, timer)
    if code := next((code for process in processes if (code := process.returncode)), 0):
        raise RunError(
            f"failed with exit code {code} ({_last_line(log) or 'no output'})",
            where=stage.title,
            remedy=f"See {log}. The same command continues from this stage",
        )
    if not stage.output.exists():
        raise RunError(f"did not write {stage.output}", where=stage.title, remedy=f"See {log}")
    commands = [list(command) for command in stage.commands]
    record = StageRecord(stage.name, stage.title, timer.elapsed, memory.bytes, commands)
    record_path.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    return record


def _wait(processes: Sequence[subprocess.Popen[bytes]], console: Console, title: str, timer: Timer) -> None:
    """Wait until every command has ended or one has failed; show the progress meanwhile."""
    interval = SHOWN_INTERVAL if console.is_terminal else QUIET_INTERVAL
    shown = time.monotonic()
    with console.status(title) as status:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                return
            time.sleep(0.2)
            if time.monotonic() - shown < interval:
                continue
            shown = time.monotonic()
            if console.is_terminal:
                status.update(f"{title}: {timer.line()}")
            else:
                _print(console, f"{title}: {timer.line()}")


def _last_line(log: Path) -> str:
    """Return the last line of a log, without colours and without text that a carriage return has overwritten."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        text = _CONTROL.sub("", stream.read().decode("utf-8", errors="replace"))
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return next((line for line in reversed(lines) if line), "")
