"""The progress of a stage, read from the files that its commands write."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Progress", "Timer", "count_files", "count_lines", "in_words"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How to measure a stage.

    Attributes:
        unit: What is counted: "steps", "answers".
        total: How many there are.
        count: Returns how many are finished.
    """

    unit: str
    total: int
    count: Callable[[], int]


def count_lines(*patterns: Path) -> Callable[[], int]:
    """Return a function that counts the lines of all files whose paths match one of the patterns."""

    def count() -> int:
        files = [file for pattern in patterns for file in Path(pattern.anchor).glob(str(pattern.relative_to("/")))]
        return sum(file.read_bytes().count(b"\n") for file in files)

    return count


def count_files(folder: Path, pattern: str) -> Callable[[], int]:
    """Return a function that counts the files below a folder."""
    return lambda: sum(1 for _ in folder.rglob(pattern))


@dataclass(slots=True)
class Timer:
    """Elapsed and remaining time of a stage.

    Attributes:
        progress: How to measure the stage.
        expected: Seconds that the stage takes on two idle cores; used until two counts give a rate.
        clock: Returns the seconds of a clock.
    """

    progress: Progress
    expected: float
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False)
    _first: tuple[float, int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._start = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self._start

    def remaining(self, done: int) -> float:
        """Return the estimated seconds until the end, 0 if the estimate has passed."""
        if self._first is None and done:
            self._first = (self.elapsed, done)
        if self._first is None or done == self._first[1]:
            return max(0.0, self.expected - self.elapsed)
        then, before = self._first
        return (self.elapsed - then) / (done - before) * (self.progress.total - done)

    def line(self) -> str:
        """Return the state in words: "6 of 10 steps, 48 s, about 30 s left"."""
        done = min(self.progress.count(), self.progress.total)
        left = self.remaining(done)
        late = "finishing" if done == self.progress.total else "longer than expected"
        estimate = f"about {in_words(left)} left" if left >= 1 else late
        return f"{done} of {self.progress.total} {self.progress.unit}, {in_words(self.elapsed)}, {estimate}"


def in_words(seconds: float) -> str:
    """Return a duration in words.

    Example:
        >>> in_words(8.2), in_words(74), in_words(299)
        ('8 s', '1 min 14 s', '4 min 59 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
