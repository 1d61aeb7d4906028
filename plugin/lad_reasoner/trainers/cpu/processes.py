"""End a trainer's run with every process it started, and only those."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import psutil

__all__ = ["end_run", "run_processes"]

#: Names the run's folder in the environment of each of its processes; see `runtime.cpu_environment`.
RUN_MARK: Final = "RAY_TMPDIR"


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
    is not enough: they are found by the environment variable that they inherited.

    Args:
        folder: The run's own folder, as given to `cpu_environment`.
        grace: Seconds between the request to end (SIGTERM) and the order (SIGKILL).
    """
    ended: set[int] = set()
    wait = grace
    # A process may start another while its parent is being ended: look again until there is none.
    while processes := run_processes(folder):
        ended |= {process.pid for process in processes}
        for process in processes:
            _signal(process, kill=wait == 0)
        psutil.wait_procs(processes, timeout=wait or 1.0)
        wait = 0
    return len(ended)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return
