"""One line that tells how a GRPO run is doing, in place of the trainers' thousands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from rich.console import Console
from rich.status import Status

from lad_reasoner.training.metrics import read_log

__all__ = ["Progress", "describe_step"]

#: Our name of a metric, and how the line shows it.
_SHOWN: Final = (
    ("reward", "reward {:.3f}"),
    ("structure", "structure {:.2f}"),
    ("accuracy", "accuracy {:.2f}"),
    ("response_length", "length {:.0f}"),
    ("kl", "KL {:.4f}"),
    ("val/accuracy", "val accuracy {:.3f}"),
)


def describe_step(row: Mapping[str, float], total: int | None) -> str:
    """Return a step's metrics as one line.

    Example:
        >>> describe_step({"step": 3, "reward": 0.5, "response_length": 25.2}, 18)
        'step 3/18  reward 0.500  length 25'
    """
    step = f"step {row['step']:.0f}" + (f"/{total}" if total else "")
    return "  ".join([step, *(form.format(row[name]) for name, form in _SHOWN if name in row)])


class Progress:
    """Follows a run's logs on stderr: a live line on a terminal, a line a step elsewhere.

    Args:
        logs: Folder of this attempt's logs.
        total: Steps of the whole run, if known.
    """

    def __init__(self, logs: Path, *, total: int | None) -> None:
        self._logs, self._total = logs, total
        self._console = Console(stderr=True, highlight=False)
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
        self._console.print(text, soft_wrap=True, markup=False)

    def update(self) -> None:
        """Show what the logs have by now."""
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
