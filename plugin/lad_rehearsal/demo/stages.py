"""A chain of commands that can be interrupted and continued; each stage has a log, an output and a cost record."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.text import Text

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
    """The cost of a stage: seconds from start to end, and the peak memory (PSS) of the whole chain meanwhile.

    Stages that run at the same time are measured together.
    """

    name: str
    title: str
    seconds: float
    peak_bytes: int
    commands: list[list[str]]


def run_stages(groups: Sequence[Sequence[Stage]], folder: Path, console: Console) -> list[StageRecord]:
    """Run the unfinished stages and return every stage's record.

    The groups run in order, the stages of a group at the same time. A stage is finished if its record exists with the
    same commands, and its output exists. Once a stage runs, every stage of the later groups runs too, because its
    input may have changed.

    Raises:
        RunError: A command failed; the stages that ran at the same time have been ended.
    """
    stages = [stage for group in groups for stage in group]
    numbered = {stage.name: f"[{number}/{len(stages)}] {stage.title}" for number, stage in enumerate(stages, start=1)}
    records: dict[str, StageRecord] = {}
    fresh = False
    for group in groups:
        finished = [record for stage in group if not fresh and (record := read_record(folder, stage))]
        records |= {record.name: record for record in finished}
        for record in finished:
            _print(console, f"{numbered[record.name]}: already done", style="dim")
        waiting = [stage for stage in group if stage.name not in records]
        fresh = fresh or bool(waiting)
        try:
            records |= {record.name: record for record in _run_group(waiting, folder, console, numbered)}
        except KeyboardInterrupt:
            for number, stage in enumerate(stages, start=1):
                if stage in waiting and read_record(folder, stage) is None:
                    _print(console, f"stopped in stage {number} of {len(stages)} ({stage.title})")
            raise
    return [records[stage.name] for stage in stages]


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


def _run_group(
    group: Sequence[Stage], folder: Path, console: Console, numbered: Mapping[str, str]
) -> list[StageRecord]:
    """Run stages at the same time, and show their progress and the cost of each."""
    records = []
    interval = SHOWN_INTERVAL if console.is_terminal else QUIET_INTERVAL
    with PeakMemory(os.getpid()) as memory, ExitStack() as stack:
        running = [_Running(stage, folder, stack) for stage in group]
        status = stack.enter_context(console.status(""))
        shown = 0.0 if console.is_terminal else time.monotonic()
        while running:
            for one in list(running):
                if record := one.finish(memory.bytes):
                    running.remove(one)
                    records.append(record)
                    cost = f"{in_words(record.seconds)}, {record.peak_bytes / 2**30:.1f} GiB"
                    _print(console, f"{numbered[record.name]}: {cost}", style="green")
            if time.monotonic() - shown >= interval:
                shown = time.monotonic()
                _show(console, status, [f"{numbered[one.stage.name]}: {one.timer.line()}" for one in running])
            time.sleep(0.2)
    return records


def _show(console: Console, status: Status, lines: Sequence[str]) -> None:
    if console.is_terminal:
        status.update(Text("\n".join(lines)))
    else:
        for line in lines:
            _print(console, line)


class _Running:
    """A stage whose commands run; they end with `stack`."""

    def __init__(self, stage: Stage, folder: Path, stack: ExitStack) -> None:
        self.stage = stage
        self._record = _record_path(folder, stage)
        self._log = self._record.with_suffix(".log")
        self._record.parent.mkdir(parents=True, exist_ok=True)
        self._record.unlink(missing_ok=True)
        if stage.starts_without is not None:
            shutil.rmtree(stage.starts_without, ignore_errors=True)
        stream = stack.enter_context(self._log.open("a", encoding="utf-8"))
        stream.truncate(0)  # appended to, because commands that run at the same time share it
        self.timer = Timer(stage.progress, stage.expected)
        self._processes = [
            stack.enter_context(
                started(command, environment={**os.environ, **stage.environment}, log=stream, grace=GRACE)
            )
            for command in stage.commands
        ]

    def finish(self, peak_bytes: int) -> StageRecord | None:
        """Write and return the record if the commands have ended; None while one runs.

        Raises:
            RunError: A command failed, or the output is missing.
        """
        codes = [process.poll() for process in self._processes]
        if code := next(filter(None, codes), 0):
            raise RunError(
                f"failed with exit code {code} ({_last_line(self._log) or 'no output'})",
                where=self.stage.title,
                remedy=f"See {self._log}. The same command continues from this stage",
            )
        if None in codes:
            return None
        if not self.stage.output.exists():
            raise RunError(f"did not write {self.stage.output}", where=self.stage.title, remedy=f"See {self._log}")
        commands = [list(command) for command in self.stage.commands]
        record = StageRecord(self.stage.name, self.stage.title, self.timer.elapsed, peak_bytes, commands)
        self._record.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
        return record


def _last_line(log: Path) -> str:
    """Return the last line of a log, without colours and without text that a carriage return has overwritten."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        text = _CONTROL.sub("", stream.read().decode("utf-8", errors="replace"))
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return next((line for line in reversed(lines) if line), "")
