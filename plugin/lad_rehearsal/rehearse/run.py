"""The rehearsal's processes: one makes the tiny model, one is the trainer. Both end with the rehearsal."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Final

from lad_reasoner.support.console import echo
from lad_reasoner.support.errors import RunError
from lad_reasoner.support.processes import run_folder
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.run.failures import last_error
from lad_reasoner.training.run.follow import RAW_LOG, describe_failure, follow
from lad_reasoner.training.run.plan import CONFIG_COPY, Command, build_command, next_attempt
from lad_reasoner.training.run.start import run_attempt
from lad_rehearsal.rehearse.model import ModelSource
from lad_rehearsal.rehearse.runtime import RehearsalRuntime

__all__ = ["make_model", "train"]

#: Errors that this machine caused: memory, disk, process limits, or Ray, which waits only so long for a busy machine.
_MACHINES_FAULT: Final = re.compile(
    r"out ?of ?memory|MemoryError|cannot allocate memory|memory was nearly full|no space left on device|disk quota"
    r"|too many open files|resource temporarily unavailable|can't start new thread"
    r"|GetTimeoutError|timed out (during startup|while waiting|waiting for)|node_ip_address\.json"
    r"|raylet.*(fail|die)|(failed|unable) to (register|start|connect).*(ray|gcs|worker)|the node .* died"
    r"|cannot be reached|address already in use",
    re.IGNORECASE,
)


def make_model(source: ModelSource, runtime: RehearsalRuntime, out: Path, *, tokenizer: Path | None) -> None:
    """Make the tiny model with the trainer's version of transformers; ``tokenizer`` if it is not the model's.

    Raises:
        RunError: The process failed; the error names the log.
    """
    origin = f"from {source.folder}" if source.folder else "embedded tokenizer"
    echo(f"making a tiny {source.family} ({origin})", err=True)
    words = ["--family", source.family, "--out", str(out)]
    words += ["--source", str(source.folder)] if source.folder else []
    words += ["--tokenizer", str(tokenizer)] if source.folder and tokenizer else []
    log = out.with_name("model.log")
    with run_folder() as folder:
        command = [runtime.python, "-m", "lad_rehearsal.rehearse.tiny_model", *words]
        code = follow(command, runtime.environment(folder), log)
    if code:
        raise explain_failure("rehearsal, tiny model", code, log)


def train(config: EasyR1Config, runtime: RehearsalRuntime, *, steps: int) -> Path:
    """Run the trainer on a scaled-down config and return its log; ``steps`` is for the progress.

    Raises:
        UsageError: verl has no counterpart for a key.
        RunError: The trainer failed; its exit code is kept.
    """
    attempt, trainer = next_attempt(config.run_dir), runtime.trainer
    log = attempt / RAW_LOG
    minutes = "several minutes" if runtime.engine == "vllm" else "a minute or two"
    started = f"{trainer.name} {trainer.version} on the CPU, {minutes} to start; log: {log}"
    command = _command(config, runtime, attempt)
    code = run_attempt(command, config, trainer, attempt, runtime.environment, total_steps=steps, notes=[started])
    if code:
        raise explain_failure(f"rehearsal, {trainer.name}", code, log)
    return log


def explain_failure(where: str, code: int, log: Path) -> RunError:
    """Return the error of a process that failed (a negative code is a signal), and its likely cause."""
    if code in {-signal.SIGKILL, 128 + signal.SIGKILL} or _MACHINES_FAULT.search(last_error(log)):
        remedy = "This machine caused the failure, not the config. Free memory or processor time, then rehearse again"
    else:
        remedy = "The GPU run would probably fail in the same way"
    return describe_failure(where, code, log, remedy=remedy)


def _command(config: EasyR1Config, runtime: RehearsalRuntime, attempt: Path) -> Command:
    if runtime.trainer.name == "easyr1":
        return Command([runtime.python, "-m", "verl.trainer.main", f"config={attempt / CONFIG_COPY}"], on_cpu=True)
    return build_command(config, runtime.trainer, attempt, gpu=False, python=runtime.python, engine=runtime.engine)
