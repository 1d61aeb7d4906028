"""Follow a running trainer: wait for its end, print one line per step, and explain a failure."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from rich.status import Status

from lad_reasoner.support.console import make_console
from lad_reasoner.support.errors import RunError
from lad_reasoner.support.processes import started
from lad_reasoner.training.metrics import read_log
from lad_reasoner.training.run.failures import last_error

__all__ = ["RAW_LOG", "RunProgress", "describe_failure", "describe_step", "follow"]

#: Everything that the trainer prints, in the folder of each attempt.
RAW_LOG: Final = "trainer.log"

#: Seconds between two polls of a process and its logs.
_POLL: Final = 0.5

#: The share of prompts whose responses are all right or all wrong is shown from here on: their advantages are zero, so
#: the step learned from the others only. Our choice.
UNANIMOUS_WORTH_SHOWING: Final = 0.5

#: Our name of a metric, and how a step's line shows it.
_SHOWN: Final = (
    ("reward", "reward {:.3f}"),
    ("structure", "structure {:.2f}"),
    ("accuracy", "accuracy {:.2f}"),
    ("response_length", "length {:.0f}"),
    ("kl", "KL {:.4f}"),
    ("val/accuracy", "val accuracy {:.3f}"),
)


def follow(
    words: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    progress: RunProgress | None = None,
    *,
    tidy: Callable[[], None] = lambda: None,
) -> int:
    """Run a command to its end, its output in a log, and return its exit code (negative: a signal).

    ``progress`` is updated and ``tidy`` is called at each poll. ``environment`` holds all variables.
    """
    with log.open("wb") as sink, started(words, environment=environment, log=sink) as process:
        while (code := process.poll()) is None:
            time.sleep(_POLL)
            tidy()
            if progress:
                progress.update()
    tidy()
    if progress:
        progress.update()
    return code


def describe_failure(where: str, code: int, log: Path, *, remedy: str) -> RunError:
    """Return the error of a process whose `follow` returned this code; it ends our command with a shell's code."""
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        how += " (out of memory?)"
    error = RunError(f"{how}: {last_error(log)}", where=where, remedy=f"See {log}. {remedy}")
    error.exit_code = 128 - code if code < 0 else code
    return error


def describe_step(row: Mapping[str, float], total: int | None) -> str:
    """Return a step's metrics as one line.

    Example:
        >>> describe_step({"step": 3, "reward": 0.5, "response_length": 25.2}, 18)
        'step 3/18  reward 0.500  length 25'
    """
    step = f"step {row['step']:.0f}" + (f"/{total}" if total else "")
    parts = [step, *(form.format(row[name]) for name, form in _SHOWN if name in row)]
    unanimous = row.get("unanimous_right", 0.0) + row.get("unanimous_wrong", 0.0)
    if unanimous >= UNANIMOUS_WORTH_SHOWING:
        parts.append(f"unanimous {unanimous:.0%}")
    return "  ".join(parts)


class RunProgress:
    """Follows the logs in a folder on stderr: one line per step of ``total``, and on a terminal a clock that runs."""

    def __init__(self, logs: Path, *, total: int | None) -> None:
        self._logs, self._total = logs, total
        self._console = make_console(err=True)
        self._status = Status("", console=self._console) if self._console.is_terminal else None
        self._started = time.monotonic()
        self._first_step: tuple[float, float] | None = None
        self._shown: set[float] = set()

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, soft_wrap=True)

    def update(self) -> None:
        """Print the steps that the logs have gained."""
        for row in read_log(self._logs):
            if row["step"] not in self._shown and "reward" in row:
                self._shown.add(row["step"])
                self.note(f"{describe_step(row, self._total)}{self._remaining(row['step'])}")
        if self._status:
            waiting = "training" if self._first_step else "starting the trainer"
            self._status.update(f"{waiting}, {_clock(time.monotonic() - self._started)}")

    def _remaining(self, step: float) -> str:
        now = time.monotonic()
        if self._first_step is None:
            self._first_step = (step, now)
        first, since = self._first_step
        if not self._total or step <= first:
            return ""
        return f"  ETA {_clock((now - since) / (step - first) * (self._total - step))}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
