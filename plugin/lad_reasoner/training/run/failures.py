"""One line out of a trainer's log that says why it failed: a cause, not what followed from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["last_error"]

_NAMED: Final = re.compile(r"[\w.]*(Error|Exception|Interrupt)(?=[:(]|$)")

#: Hydra repeats all that it was given, and says how to see more; neither is a reason.
_HYDRAS: Final = ("Error executing job with overrides", "Set the environment variable HYDRA_FULL_ERROR")

#: What the surviving ranks say when a peer is gone.
_CONSEQUENCE: Final = re.compile(r"gloo|nccl|peer|connection|socket|DistBackendError", re.IGNORECASE)

#: Ray's two ways to say that the system, and not an exception, ended a process; each with where and which.
_KILLED: Final = re.compile(
    r"A worker died or was killed while executing.*?IP address: (?P<node>\S+).*?PID: (?P<pid>\d+)"
)
_DIED: Final = re.compile(
    r"^ray\.exceptions\.ActorDiedError: The actor died unexpectedly.*?^class_name: (?P<kind>\S+).*?^pid: (?P<pid>\d+)"
    r".*?^ip: (?P<node>\S+)",
    re.MULTILINE | re.DOTALL,
)
#: Ray's memory monitor, which counts what every program of the machine holds.
_NO_MEMORY: Final = re.compile(
    r"killed due to the node running low on memory.*?^Top \d+ memory users:[^\n]*\n(?P<pid>\d+)\s+(?P<size>[\d.]+)",
    re.MULTILINE | re.DOTALL,
)
#: Ray's words where it has lost a process and does not know yet why.
_LOST: Final = re.compile(r"^ray\.exceptions\.ActorUnavailableError: ", re.MULTILINE)
_NODE_DIED: Final = re.compile(r"The node with node id: (?P<id>\w+) and address: (?P<node>\S+?),? .*?marked dead")


def last_error(log: Path) -> str:
    """Return the line of a raw log that says why the trainer failed, or what is known of a process that was killed.

    Args:
        log: All that the trainer and, through Ray, its processes wrote.

    Returns:
        At most 500 characters.
    """
    lines = [_plain(line) for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    named = [line for line in lines if _NAMED.match(line)]
    # Ray wraps the cause; the cause itself is more use.
    own = [line for line in named if not line.startswith("ray.exceptions.")]
    death = _death(lines)
    if death and (not own or _CONSEQUENCE.search(own[-1])):
        return death
    told = [line for line in lines if line and not line.startswith(_HYDRAS)]
    return next(iter([*own[-1:], *named[-1:], *told[-1:]]), "nothing in the log")[:500]


def _death(lines: Sequence[str]) -> str | None:
    """Return which node or process the system ended, or None."""
    text = "\n".join(lines)
    if found := _NO_MEMORY.search(text):
        most = f"process {found['pid']} held most, {float(found['size']):.1f} GB"
        return f"Ray ended workers because this machine's memory was nearly full; {most}"
    if found := _NODE_DIED.search(text):
        return f"the node {found['node']} died (Ray's id {found['id'][:8]})"
    died, killed = _DIED.search(text), _KILLED.search(text)
    if not (found := died or killed):
        lost = "a worker cannot be reached any more: it or its node died, or the network failed; `ray status` tells"
        return lost if _LOST.search(text) else None
    what = died["kind"].rpartition(".")[2] if died else "a worker"
    return f"{what}, process {found['pid']} on node {found['node']}, died: killed, or out of memory"


def _plain(line: str) -> str:
    """Return a log line without colours and without Ray's mark of the process that wrote it."""
    return re.sub(r"^\([^)]*pid=[^)]*\)\s*", "", re.sub(r"\x1b\[[0-9;]*m", "", line)).strip()
