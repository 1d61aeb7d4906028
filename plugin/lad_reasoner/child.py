"""A child process that never outlives its block, nor its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

__all__ = ["started"]

#: From linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


@contextmanager
def started(
    command: Sequence[str], *, environment: Mapping[str, str], log: IO[Any], grace: float = 10.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in a session of its own; whatever happens inside the block, its process group ends with it.

    Args:
        command: The words of the command line.
        environment: All of its environment variables.
        log: Where its stdout and stderr go.
        grace: Seconds between the request to end (SIGTERM) and the order (SIGKILL).
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, and no thread of ours holds a lock
    )
    try:
        yield process
    finally:
        # SIGTERM, not SIGINT: what a shell started in the background ignores the latter.
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, sign)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=grace)


def _die_with_parent() -> None:
    """Have the kernel end the child when its parent is killed: it would run on, and nobody would know."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
