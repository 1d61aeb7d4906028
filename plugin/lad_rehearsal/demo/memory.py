"""Memory of a process tree as the proportional set size (PSS), which counts shared pages once."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil

__all__ = ["PeakMemory", "tree_bytes"]


def tree_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants in bytes.

    PSS on Linux; elsewhere the resident size, which counts shared pages more than once. A process that ends while it
    is read counts as 0.
    """
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(_process_bytes(process) for process in family)


def _process_bytes(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(memory, "pss", memory.rss))


class PeakMemory:
    """Measures a process tree repeatedly in a thread; ``bytes`` is the peak.

    Example:
        >>> import os
        >>> with PeakMemory(os.getpid(), interval=0.05) as memory:
        ...     pass
        >>> memory.bytes > 0
        True
    """

    def __init__(self, pid: int, *, interval: float = 1.0) -> None:
        self.bytes = 0
        self._pid, self._interval = pid, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self.bytes = max(self.bytes, tree_bytes(self._pid))

    def __enter__(self) -> Self:
        self.bytes = tree_bytes(self._pid)  # at once: the process may end within the first interval
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
