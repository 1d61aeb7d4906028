"""Start a trainer as a process of its own, with a record on disk, so that nothing of it outlives the command."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from omegaconf import OmegaConf

from lad_reasoner.support.errors import RunError, UsageError
from lad_reasoner.support.files import locked
from lad_reasoner.support.processes import end_run, run_folder
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.installed import Trainer, has_gpu
from lad_reasoner.training.metrics import EASYR1_LOG, attempts_of
from lad_reasoner.training.run.checkpoints import find_last, remove_old, step_of
from lad_reasoner.training.run.cluster import Cluster, cluster_address, faults_of, probe
from lad_reasoner.training.run.follow import RAW_LOG, RunProgress, describe_failure, follow
from lad_reasoner.training.run.plan import CONFIG_COPY, Command, build_command, next_attempt, trainer_environment

__all__ = ["describe_exit", "end_forgotten", "keep_easyr1_log", "run_attempt", "start_training"]

_RECORD: Final = "attempt.json"

_log = logging.getLogger("lad_reasoner.training")


def start_training(config: EasyR1Config, trainer: Trainer, *, total_steps: int | None, check: bool = True) -> None:
    """Train, and return when the trainer has finished. The trainer resumes from the last checkpoint by itself.

    With ``check``, a cluster with a node that cannot take part is refused. ``total_steps`` is for the estimate of the
    remaining time.

    Raises:
        UsageError: The config asks for several nodes, and there is no cluster.
        RunError: The trainer failed (its exit code is kept), a node of the cluster cannot take part, or another
            process trains in the checkpoint folder.
        KeyboardInterrupt: Ctrl-C or SIGTERM; every process of the run has been ended.
    """
    with locked(config.run_dir):
        _train(config, trainer, total_steps=total_steps, check=check)


def _train(config: EasyR1Config, trainer: Trainer, *, total_steps: int | None, check: bool) -> None:
    end_forgotten(config.run_dir)
    cluster = _join_cluster(config, trainer, check=check) if cluster_address() else None
    if cluster is None and (nodes := config["trainer.nnodes"]) > 1:
        remedy = "Start Ray on every node and set RAY_ADDRESS=auto"
        raise UsageError(f"{nodes} nodes, but RAY_ADDRESS is not set", where="trainer.nnodes", remedy=remedy)
    attempt, gpu = next_attempt(config.run_dir), cluster.has_gpu if cluster else has_gpu()
    command = build_command(config, trainer, attempt, gpu=gpu, cluster=cluster is not None)
    keep_easyr1_log(config.run_dir)
    code = run_attempt(
        command,
        config.replace(trainer__logger=sorted({*config["trainer.logger"], "file"})),
        trainer,
        attempt,
        lambda folder: trainer_environment(command, None if cluster else folder),
        total_steps=total_steps,
        notes=_notes(config, trainer, command, attempt),
    )
    if code:
        raise describe_exit(trainer, code, attempt / RAW_LOG, find_last(config.run_dir, trainer.name))


def run_attempt(
    command: Command,
    config: EasyR1Config,
    trainer: Trainer,
    attempt: Path,
    environment: Callable[[Path], Mapping[str, str]],
    *,
    total_steps: int | None,
    notes: list[str],
) -> int:
    """Run a trainer to its end and return its exit code (negative: a signal).

    The folder of the attempt is made, with a copy of the resolved config for EasyR1. ``environment`` returns all
    environment variables, given the run's folder for Ray; ``notes`` are printed first.
    """
    attempt.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config.as_tree()), attempt / CONFIG_COPY)
    logs = config.run_dir if trainer.name == "easyr1" else attempt
    limit = config["trainer.save_limit"] if trainer.name == "verl" else 0  # EasyR1 keeps to it itself
    tidy = partial(remove_old, config.run_dir, trainer.name, limit)
    with run_folder() as folder, RunProgress(logs, total=total_steps) as progress:
        for line in notes:
            progress.note(line)
        with _recorded(attempt, command, folder):
            return follow(command.words, environment(folder), attempt / RAW_LOG, progress, tidy=tidy)


def end_forgotten(run_dir: Path) -> None:
    """End what a killed `easyr1` of this run left running: two trainers must not write to one folder."""
    for record in run_dir.glob(f"attempts/*/{_RECORD}"):
        with suppress(ValueError, KeyError):
            folder = Path(json.loads(record.read_text(encoding="utf-8"))["folder"])
            end_run(folder)
            shutil.rmtree(folder, ignore_errors=True)
        record.unlink(missing_ok=True)


@contextmanager
def _recorded(attempt: Path, command: Command, folder: Path) -> Iterator[None]:
    """Keep a record of what runs inside the block, for `end_forgotten`; every process of it ends with the block."""
    record = {"command": command.words, "folder": str(folder), "process": os.getpid()}
    (attempt / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    (attempt / "command.txt").write_text(f"{command}\n", encoding="utf-8")
    try:
        yield
    finally:
        end_run(folder)
        (attempt / _RECORD).unlink(missing_ok=True)


def _join_cluster(config: EasyR1Config, trainer: Trainer, *, check: bool) -> Cluster:
    """Probe every node of the cluster; log every fault but the first, which is raised."""
    cluster = probe(config)
    faults = list(faults_of(cluster, config, trainer)) if check else []
    for fault in faults[1:]:
        _log.error("error: %s", fault)
    if faults:
        raise faults[0]
    return cluster


def keep_easyr1_log(run_dir: Path) -> None:
    """Move EasyR1's log to the attempt that wrote it: EasyR1 truncates it at every start."""
    log, before = run_dir / EASYR1_LOG, attempts_of(run_dir)
    if log.is_file():
        home = before[-1] if before else run_dir / "attempts" / "000"
        home.mkdir(parents=True, exist_ok=True)
        log.replace(home / EASYR1_LOG)


def _notes(config: EasyR1Config, trainer: Trainer, command: Command, attempt: Path) -> list[str]:
    place = "on the CPU" if command.on_cpu else "on GPUs"
    notes = [f"{trainer.name} {trainer.version} {place}; log: {attempt / RAW_LOG}"]
    last = find_last(config.run_dir, trainer.name)
    if last is not None and config["trainer.find_last_checkpoint"] and config["trainer.load_checkpoint_path"] is None:
        notes.append(f"resuming after step {step_of(last)} from {last}")
    return notes


def describe_exit(trainer: Trainer, code: int, log: Path, last: Path | None) -> RunError:
    """Describe why a trainer ended, with the step from which the same command resumes."""
    again = f"The same command resumes after step {step_of(last)}" if last else "Nothing was saved yet"
    return describe_failure(trainer.name, code, log, remedy=again)
