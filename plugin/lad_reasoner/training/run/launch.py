"""Run a trainer as a process of its own: logs in files, one line of progress, and nothing left behind.

Each start of a run is an attempt with a folder of its own, ``<checkpoint folder>/attempts/<n>``: the command, the
config, the raw log, the metrics. The trainer resumes from the last checkpoint by itself; the attempts' metrics are
read as one run by `lad_reasoner.training.metrics`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf

from lad_reasoner.support.errors import RunError, UsageError
from lad_reasoner.support.processes import run_folder
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.easyr1.keys import Key
from lad_reasoner.training.installed import Trainer, has_gpu
from lad_reasoner.training.metrics import EASYR1_LOG, attempts_of
from lad_reasoner.training.run.attempt import (
    CONFIG_COPY,
    RAW_LOG,
    Command,
    describe_failure,
    end_forgotten,
    follow,
    next_attempt,
    recorded,
)
from lad_reasoner.training.run.checkpoints import find_last, step_of
from lad_reasoner.training.run.cluster import Cluster, cluster_address, faults_of, probe
from lad_reasoner.training.run.progress import Progress
from lad_reasoner.training.runtimes import cpu_runtime
from lad_reasoner.training.verl.hydra import as_words, lay_over
from lad_reasoner.training.verl.overrides import SAVE_CONTENTS, run_overrides, translate

__all__ = ["build_command", "finds_gpu", "launch"]


def build_command(
    config: EasyR1Config, trainer: Trainer, keys: dict[str, Key], attempt: Path, *, gpu: bool, cluster: bool = False
) -> Command:
    """Return the trainer's command line.

    Args:
        config: The EasyR1 config.
        trainer: What is installed.
        keys: EasyR1's keys.
        attempt: The folder of this attempt; EasyR1 is given the copy of the config in it.
        gpu: Whether the trainer will find GPUs, here or on a cluster.
        cluster: Whether it joins a running Ray cluster; else it starts Ray by itself.

    Raises:
        UsageError: verl has no counterpart for a key.
        RunError: EasyR1 without a GPU.
    """
    if trainer.name == "easyr1":
        if not gpu:
            raise RunError("EasyR1", found="no GPU", remedy="without one, install verl instead: it has a CPU runtime")
        words = [sys.executable, "-m", "verl.trainer.main", f"config={attempt / CONFIG_COPY}"]
        return Command(words, on_cpu=False)
    overrides = translate(config, keys)
    if not gpu:
        # Models are small there, so each checkpoint also holds one that can be used as it is.
        overrides[SAVE_CONTENTS] = [*cast("list[str]", overrides[SAVE_CONTENTS]), "hf_model"]
        overrides = lay_over(overrides, _without_gpu(config, cluster=cluster))
    overrides = lay_over(overrides, run_overrides(config, attempt))
    return Command([sys.executable, "-m", "verl.trainer.main_ppo", *as_words(overrides)], on_cpu=not gpu)


def launch(
    config: EasyR1Config, trainer: Trainer, keys: dict[str, Key], *, total_steps: int | None, check: bool = True
) -> None:
    """Train, and return when the trainer has ended well.

    Args:
        config: The EasyR1 config.
        trainer: What is installed.
        keys: EasyR1's keys.
        total_steps: For the estimate of the remaining time.
        check: Refuse a cluster of which a node cannot take part.

    Raises:
        UsageError: Several nodes are asked for, and there is no cluster.
        RunError: The trainer failed; its exit code is kept. Or a node of the cluster cannot take part.
        KeyboardInterrupt: Ctrl-C, or SIGTERM; every process of the run has been ended.
    """
    end_forgotten(config.run_dir)
    cluster = _join_cluster(config, trainer, check=check) if cluster_address() else None
    if cluster is None and config["trainer.nnodes"] > 1:
        found = f"{config['trainer.nnodes']} and no RAY_ADDRESS"
        raise UsageError("trainer.nnodes", found=found, remedy="start Ray on every node and set RAY_ADDRESS=auto")
    attempt = next_attempt(config.run_dir)
    gpu = cluster.has_gpu if cluster else has_gpu()
    command = build_command(config, trainer, keys, attempt, gpu=gpu, cluster=cluster is not None)
    attempt.mkdir(parents=True)
    _keep_easyr1_log(config.run_dir)
    OmegaConf.save(OmegaConf.create(_given_to_easyr1(config)), attempt / CONFIG_COPY)
    logs = config.run_dir if trainer.name == "easyr1" else attempt
    with run_folder() as folder, Progress(logs, total=total_steps) as progress:
        _announce(progress, config, trainer, command, attempt)
        environment = _environment(command, None if cluster else folder)
        with recorded(attempt, command, folder):
            code = follow(command.words, environment, attempt / RAW_LOG, progress)
    if code:
        raise _failure(trainer, code, attempt / RAW_LOG, find_last(config.run_dir, trainer.name))


def finds_gpu() -> bool:
    """Return whether a trainer that is started here finds GPUs: this machine's, or those of a running cluster."""
    return has_gpu() or cluster_address() is not None


def _join_cluster(config: EasyR1Config, trainer: Trainer, *, check: bool) -> Cluster:
    """Look at every node of the cluster; say all that is wrong, and raise the first of it."""
    cluster = probe(config)
    faults = list(faults_of(cluster, config, trainer)) if check else []
    for fault in faults[1:]:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        raise faults[0]
    return cluster


def _without_gpu(config: EasyR1Config, *, cluster: bool) -> dict[str, object]:
    ranks, nodes = config["trainer.n_gpus_per_node"], config["trainer.nnodes"]
    if not cluster:
        return cpu_runtime().cpu_overrides(ranks=ranks)
    # Ray's daemons were started by others: what the processes need in their environment travels with the run.
    prefix = "++ray_kwargs.ray_init.runtime_env.env_vars"
    travels = {f"{prefix}.{name}": value for name, value in cpu_runtime().cluster_environment().items()}
    return cpu_runtime().cpu_overrides(ranks=ranks, nodes=nodes, own_ray=False) | travels


def _given_to_easyr1(config: EasyR1Config) -> dict[str, object]:
    return config.replace(trainer__logger=sorted({*config["trainer.logger"], "file"})).as_tree()


def _keep_easyr1_log(run_dir: Path) -> None:
    """Move EasyR1's log to the attempt that wrote it: EasyR1 empties it at every start."""
    log, before = run_dir / EASYR1_LOG, attempts_of(run_dir)[:-1]
    if log.is_file():
        home = before[-1] if before else run_dir / "attempts" / "000"
        home.mkdir(parents=True, exist_ok=True)
        log.replace(home / EASYR1_LOG)


def _announce(progress: Progress, config: EasyR1Config, trainer: Trainer, command: Command, attempt: Path) -> None:
    place = "on the CPU" if command.on_cpu else "on GPUs"
    progress.note(f"{trainer.name} {trainer.version} {place}; log: {attempt / RAW_LOG}")
    last = find_last(config.run_dir, trainer.name)
    if last is not None and config["trainer.find_last_checkpoint"] and config["trainer.load_checkpoint_path"] is None:
        progress.note(f"resuming after step {step_of(last)} from {last}")


def _environment(command: Command, folder: Path | None) -> dict[str, str]:
    """Return the trainer's environment: with a folder for a Ray of its own, or to join a cluster."""
    own = {"PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1"}
    if folder is None:  # RAY_TMPDIR is where Ray looks for the cluster: it stays the user's
        return {**os.environ, **own, **(cpu_runtime().cluster_environment() if command.on_cpu else {})}
    cpu = cpu_runtime().cpu_environment(folder) if command.on_cpu else {}
    return {**os.environ, **own, "RAY_TMPDIR": str(folder), **cpu}


def _failure(trainer: Trainer, code: int, log: Path, last: Path | None) -> RunError:
    again = f"the same command resumes after step {step_of(last)}" if last else "nothing was saved yet"
    return describe_failure(trainer.name, code, log, remedy=again)
