"""Child processes and runs that end with their block or their parent."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import psutil

__all__ = ["die_with_parent", "end_run", "run_folder", "run_processes", "started"]

#: From linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)

#: Names the run's folder in the environment of each of its processes; see `runtime.cpu_environment`.
RUN_MARK: Final = "RAY_TMPDIR"


@contextmanager
def started(
    command: Sequence[str], *, environment: Mapping[str, str], log: IO[Any], grace: float = 10.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in a session of its own; whatever happens inside the block, its process group ends with it.

    ``environment`` holds all of its variables, ``log`` gets its stdout and stderr, and ``grace`` is the number of
    seconds between the request to end (SIGTERM) and the order (SIGKILL).
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, and no thread of ours holds a lock
    )
    try:
        yield process
    finally:
        # Use SIGTERM: shells make background jobs ignore SIGINT.
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, sign)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=grace)


def die_with_parent() -> None:
    """Have Linux kill this process when its parent is killed; otherwise it would run on unnoticed."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def run_folder() -> Iterator[Path]:
    """Make a short temporary folder for Ray's sockets (AF_UNIX allows 107 bytes) and logs; remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="lad-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_processes(folder: Path) -> list[psutil.Process]:
    """Return the processes that were given ``folder`` as RAY_TMPDIR, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(RUN_MARK) == str(folder):
                found.append(process)
        except psutil.Error:  # it ended meanwhile, or is another user's
            continue
    return found


def end_run(folder: Path, *, grace: float = 5.0) -> int:
    """End every process of the run that was given ``folder`` as RAY_TMPDIR; return how many were left.

    Ray starts its daemons (raylet, gcs_server, agents, workers) in sessions of their own, so killing a process group
    is not enough: they are found by the environment variable that they inherited. ``grace`` is as in `started`.
    """
    ended: set[int] = set()
    wait = grace
    # A process may start another while its parent is being ended: look again until there is none.
    while processes := run_processes(folder):
        ended |= {process.pid for process in processes}
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate() if wait else process.kill()
        psutil.wait_procs(processes, timeout=wait or 1.0)
        wait = 0
    return len(ended)
