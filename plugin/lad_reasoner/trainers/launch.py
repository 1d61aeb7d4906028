"""Run a trainer as a process of its own: logs in files, one line of progress, and nothing left behind.

Each start of a run is an attempt with a folder of its own, ``<checkpoint folder>/attempts/<n>``: the command, the
config, the raw log, the metrics. The trainer resumes from the last checkpoint by itself; the attempts' metrics are
read as one run by `lad_reasoner.trainers.metrics`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from omegaconf import OmegaConf

from lad_reasoner.child import started
from lad_reasoner.errors import RunError
from lad_reasoner.trainers.checkpoints import find_last, step_of
from lad_reasoner.trainers.config import EasyR1Config
from lad_reasoner.trainers.cpu.processes import end_run
from lad_reasoner.trainers.cpu.runtime import cpu_environment, cpu_overrides, run_folder
from lad_reasoner.trainers.grammar import Key
from lad_reasoner.trainers.hydra_words import as_words, lay_over
from lad_reasoner.trainers.installed import Trainer, has_gpu
from lad_reasoner.trainers.metrics import EASYR1_LOG, attempts_of
from lad_reasoner.trainers.progress import Progress
from lad_reasoner.trainers.verl_overrides import SAVE_CONTENTS, run_overrides, translate

__all__ = ["Command", "build_command", "finds_gpu", "last_error", "launch"]

RAW_LOG: Final = "trainer.log"
RUN_RECORD: Final = "attempt.json"
CONFIG_COPY: Final = "easyr1.yaml"

#: Seconds between two looks at the trainer and its logs.
POLL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Command:
    """What the trainer is started with.

    Attributes:
        words: The command line.
        on_cpu: Whether the CPU runtime is used.
    """

    words: list[str]
    on_cpu: bool

    def __str__(self) -> str:
        return " ".join(shlex.quote(word) for word in self.words)


def build_command(
    config: EasyR1Config, trainer: Trainer, keys: dict[str, Key], attempt: Path, *, gpu: bool
) -> Command:
    """Return the trainer's command line.

    Args:
        config: The EasyR1 config.
        trainer: What is installed.
        keys: EasyR1's keys.
        attempt: The folder of this attempt; EasyR1 is given the copy of the config in it.
        gpu: Whether the trainer will find GPUs, here or on a cluster.

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
        overrides = lay_over(overrides, cpu_overrides(ranks=config["trainer.n_gpus_per_node"]))
    overrides = lay_over(overrides, run_overrides(config, attempt))
    return Command([sys.executable, "-m", "verl.trainer.main_ppo", *as_words(overrides)], on_cpu=not gpu)


def launch(config: EasyR1Config, trainer: Trainer, keys: dict[str, Key], *, total_steps: int | None) -> None:
    """Train, and return when the trainer has ended well.

    Args:
        config: The EasyR1 config.
        trainer: What is installed.
        keys: EasyR1's keys.
        total_steps: For the estimate of the remaining time.

    Raises:
        RunError: The trainer failed; its exit code is kept.
        KeyboardInterrupt: Ctrl-C, or SIGTERM; every process of the run has been ended.
    """
    end_forgotten(config.run_dir)
    attempt = config.run_dir / "attempts" / f"{len(attempts_of(config.run_dir)) + 1:03}"
    command = build_command(config, trainer, keys, attempt, gpu=finds_gpu())
    attempt.mkdir(parents=True)
    _keep_easyr1_log(config.run_dir)
    OmegaConf.save(OmegaConf.create(_given_to_easyr1(config)), attempt / CONFIG_COPY)
    logs = config.run_dir if trainer.name == "easyr1" else attempt
    with run_folder() as folder, Progress(logs, total=total_steps) as progress:
        _announce(progress, config, trainer, command, attempt)
        _write_record(attempt, command, folder)
        try:
            code = _run(command, _environment(command, folder), attempt / RAW_LOG, progress)
        finally:
            end_run(folder)
            (attempt / RUN_RECORD).unlink(missing_ok=True)
    if code:
        raise _failure(trainer, code, attempt / RAW_LOG, find_last(config.run_dir, trainer.name))


def finds_gpu() -> bool:
    """Return whether a trainer that is started here finds GPUs: this machine's, or those of a running cluster."""
    return has_gpu() or "RAY_ADDRESS" in os.environ


def end_forgotten(run_dir: Path) -> None:
    """End what a killed `easyr1` of this run left running: two trainers must not write to one folder."""
    for record in run_dir.glob(f"attempts/*/{RUN_RECORD}"):
        with suppress(ValueError, KeyError):
            folder = Path(json.loads(record.read_text(encoding="utf-8"))["folder"])
            end_run(folder)
            shutil.rmtree(folder, ignore_errors=True)
        record.unlink(missing_ok=True)


def last_error(log: Path) -> str:
    """Return the line of a raw log that says why the trainer failed: the last one that names an exception."""
    lines = [_plain(line) for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    # Ray wraps the cause; the cause itself is more use.
    own = [line for line in named if not line.startswith("ray.exceptions.")]
    return next(iter([*own[-1:], *named[-1:], *[line for line in lines if line][-1:]]), "nothing in the log")[:500]


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


def _write_record(attempt: Path, command: Command, folder: Path) -> None:
    record = {"command": command.words, "folder": str(folder), "process": os.getpid()}
    (attempt / RUN_RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    (attempt / "command.txt").write_text(f"{command}\n", encoding="utf-8")


def _environment(command: Command, folder: Path) -> dict[str, str]:
    own = {"PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1", "RAY_TMPDIR": str(folder)}
    return os.environ | own | (cpu_environment(folder) if command.on_cpu else {})


def _run(command: Command, environment: dict[str, str], log: Path, progress: Progress) -> int:
    with log.open("wb") as sink, started(command.words, environment=environment, log=sink) as process:
        while (code := process.poll()) is None:
            time.sleep(POLL)
            progress.update()
    progress.update()
    return code


def _failure(trainer: Trainer, code: int, log: Path, last: Path | None) -> RunError:
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        how += " (out of memory?)"
    again = f"the same command resumes after step {step_of(last)}" if last else "nothing was saved yet"
    error = RunError(trainer.name, found=f"{how}: {last_error(log)}", remedy=f"see {log}; {again}")
    error.exit_code = 128 - code if code < 0 else code
    return error


def _plain(line: str) -> str:
    """Return a log line without colours and without Ray's mark of the process that wrote it."""
    return re.sub(r"^\([^)]*pid=[^)]*\)\s*", "", re.sub(r"\x1b\[[0-9;]*m", "", line)).strip()
