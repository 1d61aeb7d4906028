"""Inspect every node of a Ray cluster as a trainer's processes would see it: ``python -m ... REQUEST.json``.

A separate program, so that the launcher does not import Ray. It joins the cluster as the trainer will, runs one small
task on each node and prints the results as one line of JSON. The tasks are sent by value (they are in ``__main__``)
and import what they need on the node, so a node without this package can report that.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["look", "main"]

#: Seconds in which a node must answer; the first task on a node starts a worker there.
PATIENCE = 120
#: Seconds within which the GPUs of a run that has just ended are released.
RELEASE = 20


def look(paths: list[str], token: str) -> dict[str, Any]:
    """Return the versions, files and GPUs of this machine.

    Args:
        paths: Files and folders that the run reads.
        token: A file that the launcher wrote into the run's folder; each node writes a file next to it.
    """
    import hashlib
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    def digest(files: list[Path]) -> str:
        total = hashlib.sha256()
        for file in files:
            with file.open("rb") as stream:
                # The beginning and the size: data sets are large, and edits of text are found.
                total.update(f"{file.name} {file.stat().st_size} ".encode() + stream.read(1 << 20))
        return total.hexdigest()[:12]

    def state(path: Path) -> str:
        try:
            if path.is_dir():
                return digest(sorted(file for file in path.glob("*.json") if file.is_file()))
            return digest([path]) if path.is_file() else "missing"
        except OSError as fault:
            return f"unreadable: {fault.strerror}"

    versions = {"python": platform.python_version()}
    for package in ("verl", "torch", "transformers", "ray"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    try:
        import lad_reasoner
    except Exception as fault:
        versions["lad_reasoner"] = f"missing: {type(fault).__name__}: {fault}"
    else:
        home = Path(lad_reasoner.__file__).parent
        sources = sorted(file for kind in ("*.py", "*.jinja") for file in home.rglob(kind))
        versions["lad_reasoner"] = f"{lad_reasoner.__version__} (sources {digest(sources)})"
    try:
        Path(f"{token}.{platform.node()}.{os.getpid()}").write_text("seen", encoding="utf-8")
        shared = Path(token).is_file()
    except OSError:
        shared = False
    return {
        "versions": versions,
        "files": {path: state(Path(path)) for path in paths},
        "shares_run_folder": shared,
        "nvidia": any(Path("/dev").glob("nvidia[0-9]*")),
    }


def main(request: str) -> None:
    """Answer a request: ``paths`` and ``token`` for `look`, ``gpus`` that must be free."""
    import ray

    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    ray.init(log_to_driver=False, logging_level="error")
    nodes = [node for node in ray.nodes() if node["Alive"]]
    answers = _ask(nodes, asked)
    free = _wait_for_gpus(asked["gpus"])
    here = look(asked["paths"], asked["token"])
    seen = [
        {
            "name": _name(node),
            "gpus": int(node["Resources"].get("GPU", 0)),
            "free_gpus": int(free.get(node["NodeID"], {}).get("GPU", 0)),
            "cpus": int(node["Resources"].get("CPU", 0)),
            **answers[node["NodeID"]],
        }
        for node in nodes
    ]
    # The launcher reads this line from the child process.
    print(json.dumps({"here": here, "nodes": seen}))


def _ask(nodes: list[dict[str, Any]], asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Run `look` on every node at once; a node that fails or is silent says that instead."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def placed(node: dict[str, Any]) -> Any:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        return ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)

    calls = {node["NodeID"]: placed(node).remote(asked["paths"], asked["token"]) for node in nodes}
    ready, _silent = ray.wait(list(calls.values()), num_returns=len(calls), timeout=PATIENCE)
    answers: dict[str, dict[str, Any]] = {}
    for node, call in calls.items():
        try:
            answers[node] = ray.get(call) if call in ready else {"fault": f"no answer in {PATIENCE} s"}
        except Exception as fault:
            answers[node] = {"fault": f"{type(fault).__name__}: {' '.join(str(fault).split())[:300]}"}
    return answers


def _wait_for_gpus(count: int) -> dict[str, dict[str, float]]:
    """Return what is free on each node, as soon as ``count`` GPUs are, or after a while."""
    import ray

    end = time.monotonic() + RELEASE
    while True:
        free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()  # noqa: SLF001 - as verl
        if sum(node.get("GPU", 0) for node in free.values()) >= count or time.monotonic() > end:
            return free
        time.sleep(0.5)


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


if __name__ == "__main__":
    main(sys.argv[1])
