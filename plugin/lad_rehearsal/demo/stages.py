"""A chain of commands that can be stopped and taken up again: each stage has a log, an output and a record of cost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from lad_reasoner.support.errors import RunError
from lad_reasoner.support.processes import started
from lad_rehearsal.demo.memory import PeakMemory

__all__ = ["Stage", "StageRecord", "run_stages"]

#: How often the last line of a running stage is shown where there is no terminal to redraw, in seconds.
QUIET_INTERVAL = 20.0
#: What a stage has to end what it started itself, in seconds.
GRACE = 30.0

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the chain.

    Attributes:
        name: Short and unique; names the log and the record.
        title: What a person reads while it runs.
        commands: What is run, one after the other.
        output: What exists when the stage is done.
        starts_without: What an earlier, unfinished attempt left and the commands would stumble over: removed first.
        environment: Variables laid over the environment of the commands.
    """

    name: str
    title: str
    commands: Sequence[Sequence[str]]
    output: Path
    starts_without: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What a stage cost: seconds from start to end, and the peak memory (PSS) of all its processes together."""

    name: str
    title: str
    seconds: float
    peak_bytes: int
    commands: list[list[str]]


def run_stages(stages: Sequence[Stage], folder: Path, console: Console) -> list[StageRecord]:
    """Run the stages that are not done yet, in order, and return every stage's record.

    A stage is done when its record is there, names the same commands, and its output exists. Once a stage runs, every
    later one runs too: it may read what changed.

    Raises:
        RunError: A command failed. The error names the stage, its log and what to do.
    """
    records: list[StageRecord] = []
    fresh = False
    for number, stage in enumerate(stages, start=1):
        prefix = f"[{number}/{len(stages)}]"
        done = None if fresh else _read_record(folder, stage)
        if done is None:
            fresh = True
            done = _run_stage(stage, folder, console, prefix)
            console.print(
                f"{prefix} {stage.title}: {done.seconds:.0f} s, {done.peak_bytes / 2**30:.1f} GiB", style="green"
            )
        else:
            console.print(f"{prefix} {stage.title}: done before", style="dim")
        records.append(done)
    return records


def _record_path(folder: Path, stage: Stage) -> Path:
    return folder / "stages" / f"{stage.name}.json"


def _read_record(folder: Path, stage: Stage) -> StageRecord | None:
    path = _record_path(folder, stage)
    if not (path.is_file() and stage.output.exists()):
        return None
    try:
        record = StageRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):  # cut short by a kill: the stage is run again
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
    start, peak = time.monotonic(), 0
    with log.open("w", encoding="utf-8") as stream:
        for command in stage.commands:
            with (
                started(command, environment=environment, log=stream, grace=GRACE) as process,
                PeakMemory(process.pid) as memory,
            ):
                code = _wait(process, log, console, f"{prefix} {stage.title}", start)
            peak = max(peak, memory.bytes)
            if code != 0:
                raise RunError(
                    stage.title,
                    found=f"exit code {code} ({_last_line(log) or 'no output'})",
                    remedy=f"read {log}; the same command run again goes on from this stage",
                )
    if not stage.output.exists():
        raise RunError(stage.title, found=f"no {stage.output}", remedy=f"read {log}")
    record = StageRecord(
        stage.name, stage.title, time.monotonic() - start, peak, [list(command) for command in stage.commands]
    )
    record_path.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    return record


def _wait(process: subprocess.Popen[bytes], log: Path, console: Console, title: str, start: float) -> int:
    """Wait for a command while showing the last line of its log; return its exit code."""
    shown = time.monotonic()
    with console.status(title) as status:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.5)
            line = f"{title}: {time.monotonic() - start:.0f} s  {_last_line(log)}"
            if console.is_terminal:
                status.update(line[: console.width - 4])
            elif time.monotonic() - shown >= QUIET_INTERVAL:
                shown = time.monotonic()
                console.print(line[:160], markup=False, soft_wrap=True)


def _last_line(log: Path) -> str:
    """Return the last printed line of a log, without colours and without what a carriage return erased."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        text = _CONTROL.sub("", stream.read().decode("utf-8", errors="replace"))
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return next((line for line in reversed(lines) if line), "")
