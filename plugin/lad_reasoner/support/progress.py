"""Progress of long work: library code reports it, and the caller decides whether and how to show it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ProgressCallback", "listen", "report", "show_progress", "track"]

Item = TypeVar("Item")

#: Called with a description ("pairs"), how many are done, and how many there are.
ProgressCallback = Callable[[str, int, int], object]

#: Between two lines of progress where bars cannot be shown. Our choice.
_LINE_SECONDS: Final = 30.0

#: Seconds without a report that end a batch, and seconds after which reports are no batch but a steady stream.
_PAUSE: Final = 0.5
_LONGEST_BATCH: Final = 5.0

_callback: ContextVar[ProgressCallback | None] = ContextVar("progress", default=None)


@contextmanager
def listen(callback: ProgressCallback | None) -> Iterator[None]:
    """Send the progress of the code inside to a callback; None keeps the outer one, if any.

    Example:
        >>> from lad_reasoner.support.progress import listen, track
        >>> with listen(lambda what, done, total: print(what, done, "of", total)):
        ...     items = list(track("ab", total=2, description="letters"))
        letters 0 of 2
        letters 1 of 2
        letters 2 of 2
    """
    token = _callback.set(callback or _callback.get())
    try:
        yield
    finally:
        _callback.reset(token)


def report(description: str, done: int, total: int) -> None:
    """Report that ``done`` of ``total`` items are finished."""
    if (callback := _callback.get()) is not None:
        callback(description, done, total)


def track(items: Iterable[Item], *, total: int, description: str) -> Iterator[Item]:
    """Yield the items and report each one that is finished."""
    report(description, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        report(description, done, total)


@contextmanager
def show_progress() -> Iterator[None]:
    """Show the progress of the code inside on stderr: as bars on a terminal, else as a line every half minute."""
    if not sys.stderr.isatty():
        with listen(_Lines()):
            yield
        return
    bars = _Bars()
    try:
        with listen(bars):
            yield
    finally:
        bars.stop()


class _Lines:
    """A line for work that takes longer than ``_LINE_SECONDS``, and again after each such time."""

    def __init__(self) -> None:
        self._started: dict[str, tuple[float, int]] = {}
        self._latest: dict[str, tuple[float, int]] = {}
        self._printed = time.monotonic()
        self._due: float | None = None

    def __call__(self, description: str, done: int, total: int) -> None:
        now = time.monotonic()
        began, before = self._started.setdefault(description, (now, done))
        then, latest = self._latest.get(description, (now, done))
        self._latest[description] = now, done
        if then - max(self._printed, began) < _LINE_SECONDS or done >= total:
            return
        self._due = now if self._due is None else self._due
        # The items of a batch are reported at once: only after the last one is the rate right.
        if now - then < _PAUSE and now - self._due < _LONGEST_BATCH:
            return
        self._printed, self._due = then, None
        rate = (latest - before) / (then - began) if then > began else 0
        left = f", about {max(1, round((total - latest) / rate / 60))} min left" if rate else ""
        print(f"{description}: {latest} of {total}{left}", file=sys.stderr, flush=True)


class _Bars:
    """One bar per description. Nothing is shown before the first report, or between finished work and new work."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, description: str, done: int, total: int) -> None:
        progress = self._progress or self._start()
        if description not in self._tasks:
            self._tasks[description] = progress.add_task(description, total=total)
        progress.update(self._tasks[description], completed=done, total=total)
        if progress.finished:
            self.stop()

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), redirect_stdout=False)
        self._progress.start()
        return self._progress

    def stop(self) -> None:
        """Leave the bars as they are."""
        if self._progress is not None:
            with suppress(BrokenPipeError):
                self._progress.stop()
        self._progress, self._tasks = None, {}
