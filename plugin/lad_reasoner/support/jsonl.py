"""Append-only files of lines that survive a killed process and a full disk."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Self

from lad_reasoner.support.errors import RunError
from lad_reasoner.support.files import is_still, try_lock

__all__ = ["LineFile"]


class LineFile:
    """An append-only file of lines, open and locked. Use as a context manager.

    Args:
        path: The file; it and its folder are made if absent.
        sync_seconds: Wait for the disk at most this often; 0 waits after every line.

    Raises:
        RunError: Another process writes to the file.
    """

    def __init__(self, path: Path, *, sync_seconds: float = 0.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._sync_seconds, self._synced = path, sync_seconds, time.monotonic()
        self._file = path.open("ab", buffering=0)
        if not try_lock(self._file.fileno()):
            self._file.close()
            remedy = "Wait until it ends, or choose another --out"
            raise RunError("another process is writing to this file", where=path, remedy=remedy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the file; after an error, a file to which nothing was written is removed."""
        descriptor = self._file.fileno()
        if kind is not None and os.fstat(descriptor).st_size == 0 and is_still(descriptor, self.path):
            self.path.unlink()
        self.close()

    def append(self, line: bytes) -> None:
        """Write a line, which includes its line end, whole or not at all.

        Raises:
            RunError: The file was removed or replaced meanwhile, so that the line would be lost.
            OSError: The disk is full, or the like.
        """
        descriptor = self._file.fileno()
        if not is_still(descriptor, self.path):
            problem = "the file was removed or replaced while it was written to"
            raise RunError(problem, where=self.path, remedy="Put it back and run the same command again to continue")
        size = os.fstat(descriptor).st_size
        try:
            while line:  # after a part was written, the next write raises the reason
                line = line[os.write(descriptor, line) :]
            if time.monotonic() - self._synced >= self._sync_seconds:
                self.sync()
        except OSError:
            os.ftruncate(descriptor, size)
            raise

    def truncate(self, size: int) -> None:
        """Cut the file to this many bytes."""
        self._file.truncate(size)
        self.sync()

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close the file, which gives up its lock."""
        try:
            self.sync()
        finally:
            self._file.close()
