"""A running Ray cluster: whether there is one, and whether each of its nodes can take part in a run.

A trainer's processes run wherever Ray puts them. Code, prompt, reward, data and the folder of the run must be the same
on every node; a node that differs would fail minutes later, or train another thing. So each node is asked first, by
`lad_reasoner.training.run.cluster_probe`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from lad_reasoner.support.errors import RunError, UsageError
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.installed import Trainer, TrainerName, joins_cluster

__all__ = ["Cluster", "Look", "Node", "cluster_address", "faults_of", "files_of", "probe"]

#: Seconds in which the whole cluster must have answered; Ray itself waits for a cluster that is not there.
PATIENCE: Final = 240

#: Seconds in which the head node must take a connection.
KNOCK: Final = 10

#: Logical CPUs that a trainer reserves per GPU (its ResourcePoolManager); with fewer, it waits for ever.
CPUS_PER_GPU: Final[dict[TrainerName, int]] = {"verl": 3, "easyr1": 1}


class _Seen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Look(_Seen):
    """What a machine has.

    Attributes:
        versions: Package to version; "missing..." where there is none.
        files: Path to a digest of its content, or "missing", or why it cannot be read.
        shares_run_folder: Whether the launcher's file in the run's folder is there, and another can be written.
        nvidia: Whether there is an NVIDIA GPU.
    """

    versions: dict[str, str] = {}
    files: dict[str, str] = {}
    shares_run_folder: bool = False
    nvidia: bool = False


class Node(Look):
    """A node of the cluster.

    Attributes:
        name: Host name, address and the beginning of Ray's id.
        gpus: What Ray counts there, real or pretended.
        free_gpus: GPUs that are not in use.
        cpus: Logical CPUs, as Ray counts them.
        fault: Why the node did not answer.
    """

    name: str
    gpus: int
    free_gpus: int
    cpus: int
    fault: str | None = None


class Cluster(_Seen):
    """What the probe saw: the launcher's machine, and all nodes, this one included."""

    here: Look
    nodes: list[Node]

    @property
    def has_gpu(self) -> bool:
        """Whether there are real GPUs; without any, verl runs on the CPU and Ray's GPUs are pretended."""
        return any(node.nvidia for node in self.nodes)


def cluster_address() -> str | None:
    """Return the address of the cluster to join (RAY_ADDRESS), or None to start Ray here.

    Raises:
        UsageError: The address is that of Ray's dashboard or of its client server.
    """
    if not joins_cluster():
        return None
    address = os.environ["RAY_ADDRESS"]
    if "://" in address:
        remedy = "Set it to auto or HOST:PORT and run on a node of the cluster, "
        remedy += "or send the command there: `ray job submit --address http://... --`"
        raise UsageError(f"{address} is not the address of the head node", where="RAY_ADDRESS", remedy=remedy)
    return address


def files_of(config: EasyR1Config) -> list[str]:
    """Return the files and folders that a run reads, under the names of the config; hub names are left out."""
    named = [config["data.train_files"], config["data.val_files"], config["data.format_prompt"]]
    named += [config["data.override_chat_template"], config["worker.actor.model.model_path"]]
    named.append((config["worker.reward.reward_function"] or "").rpartition(":")[0])
    paths = [str(Path(part.partition("@")[0]).absolute()) for name in named if name for part in str(name).split(",")]
    return sorted({path for path in paths if Path(path).exists()})


def probe(config: EasyR1Config) -> Cluster:
    """Ask every node of the cluster; the run's folder is made.

    Raises:
        RunError: The cluster does not answer.
    """
    _reach(os.environ["RAY_ADDRESS"])
    config.run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".nodes-", dir=config.run_dir) as folder:
        request = Path(folder) / "request.json"
        gpus = int(config["trainer.nnodes"] * config["trainer.n_gpus_per_node"])
        asked = {"paths": files_of(config), "token": str(request.absolute()), "gpus": gpus}
        request.write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-m", "lad_reasoner.training.run.cluster_probe", str(request)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise _unreachable(f"no answer in {PATIENCE} s") from None
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["no output"]
    if done.returncode:
        raise _unreachable(lines[-1][:300])
    return Cluster.model_validate_json(lines[-1])


def faults_of(cluster: Cluster, config: EasyR1Config, trainer: Trainer) -> Iterator[RunError]:
    """Yield the faults of each node, and then whether the cluster is large enough."""
    for node in cluster.nodes:
        yield from _faults_of_node(node, cluster.here, config)
    nodes, each, cpus = config["trainer.nnodes"], config["trainer.n_gpus_per_node"], CPUS_PER_GPU[trainer.name]
    remedy = "Correct trainer.nnodes and trainer.n_gpus_per_node, or start Ray on more nodes"
    if not cluster.has_gpu:
        remedy += "; without GPUs, `ray start --num-gpus N` on each node pretends as many as it may have ranks"
    sizes = (
        ("GPUs", {node.name: node.gpus for node in cluster.nodes}, each),
        ("GPUs that are free", {node.name: node.free_gpus for node in cluster.nodes}, each),
        ("logical CPUs", {node.name: node.cpus for node in cluster.nodes}, each * cpus),
    )
    room = {node.name: nodes for node in cluster.nodes}  # how many nodes of the run each can serve
    for what, have, need in sizes:
        room = {name: min(count, have[name] // need) for name, count in room.items()}
        if sum(room.values()) < nodes:
            counts = ", ".join(f"{count} on {name}" for name, count in have.items())
            problem = f"the run needs {need} {what} on each of {nodes} nodes, but the cluster has {counts}"
            yield RunError(problem, where="cluster", remedy=remedy)
            return


def _faults_of_node(node: Node, here: Look, config: EasyR1Config) -> Iterator[RunError]:
    where = f"node {node.name}"
    if node.fault:
        yield RunError(f"no answer ({node.fault})", where=where, remedy="See Ray's logs on that node")
        return
    for package, wanted in here.versions.items():
        found = node.versions.get(package, "missing")
        if found != wanted:
            remedy = f"Install the same {package} on every node"
            if package == "lad_reasoner":
                remedy = "Install the same package there, or send it along with `ray job submit`: see docs/easyr1.md"
            yield RunError(f"{package} is {found} here, but {wanted} on the launcher", where=where, remedy=remedy)
    for path, wanted in here.files.items():
        found = node.files.get(path, "missing")
        if found != wanted:
            what = f"is {found}" if found.startswith(("missing", "unreadable")) else "differs from the launcher's"
            yield RunError(f"{path} {what}", where=where, remedy="Put it into a shared folder")
    if not node.shares_run_folder:
        problem = f"{config.run_dir} is not shared with the launcher, or not writable"
        remedy = "Name a folder in trainer.save_checkpoint_path that every node mounts: each rank saves its shard"
        yield RunError(problem, where=where, remedy=remedy)


def _reach(address: str) -> None:
    """Raise a RunError if nothing listens at the head node's address: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():  # auto: Ray searches this machine
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
    except OSError as fault:
        raise _unreachable(fault.strerror or str(fault)) from None


def _unreachable(found: str) -> RunError:
    problem = f"no Ray cluster answers at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')} ({found})"
    remedy = "`ray status` must work on this machine; unset RAY_ADDRESS to train on this machine alone"
    return RunError(problem, remedy=remedy)
