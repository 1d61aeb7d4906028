"""The rehearsal's processes: one makes the tiny model, one is the trainer. None outlives it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console

from lad_reasoner.child import started
from lad_reasoner.errors import LadError, RunError
from lad_reasoner.trainers.config import EasyR1Config
from lad_reasoner.trainers.cpu.processes import end_run
from lad_reasoner.trainers.cpu.runtime import run_folder
from lad_reasoner.trainers.failure import last_error
from lad_reasoner.trainers.grammar import Key
from lad_reasoner.trainers.launch import RAW_LOG, RUN_RECORD, Command, build_command
from lad_reasoner.trainers.progress import Progress
from lad_reasoner.trainers.rehearse.model import ModelSource
from lad_reasoner.trainers.rehearse.rig import Rig

__all__ = ["make_model", "note", "train"]

#: Seconds between two looks at a process and its logs.
POLL: Final = 0.5


def note(text: str) -> None:
    """Say on stderr what is being done."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def make_model(source: ModelSource, rig: Rig, out: Path, *, tokenizer: Path | None) -> None:
    """Make the tiny model with the transformers that the trainer will read it with.

    Args:
        source: What it is made from.
        rig: The trainer's python.
        out: Folder to write.
        tokenizer: Where the tokenizer's files are, if not with the model.

    Raises:
        RunError: It failed; the error names the log.
    """
    note(f"making a tiny {source.family} ({'from ' + str(source.folder) if source.folder else 'embedded tokenizer'})")
    words = ["--family", source.family, "--out", str(out)]
    words += ["--source", str(source.folder)] if source.folder else []
    words += ["--tokenizer", str(tokenizer)] if source.folder and tokenizer else []
    command = [rig.python, "-m", "lad_reasoner.trainers.rehearse.tiny_model", *words]
    log = out.with_name("model.log")
    with run_folder() as folder:
        code = _follow(command, rig.environment(folder), log, None)
    if code:
        raise _failure("tiny model", code, log)


def train(config: EasyR1Config, rig: Rig, keys: Mapping[str, Key], *, steps: int) -> None:
    """Run the trainer on a scaled-down config.

    Args:
        config: The config, scaled down.
        rig: The trainer and its python.
        keys: EasyR1's keys.
        steps: Steps, for the progress.

    Raises:
        UsageError: verl has no counterpart for a key.
        RunError: The trainer failed; its exit code is kept.
    """
    attempt = config.run_dir / "attempts" / "001"
    attempt.mkdir(parents=True)
    (attempt / "easyr1.yaml").write_text(yaml.safe_dump(config.as_tree(), sort_keys=False), encoding="utf-8")
    command = _command(config, rig, keys, attempt)
    (attempt / "command.txt").write_text(f"{command}\n", encoding="utf-8")
    log = attempt / RAW_LOG
    logs = config.run_dir if rig.trainer.name == "easyr1" else attempt
    with run_folder() as folder, Progress(logs, total=steps) as progress:
        progress.note(f"{rig.trainer.name} {rig.trainer.version} on the CPU, a minute or two to start; log: {log}")
        record = {"command": command.words, "folder": str(folder), "process": os.getpid()}
        (attempt / RUN_RECORD).write_text(json.dumps(record), encoding="utf-8")
        try:
            code = _follow(command.words, rig.environment(folder), log, progress)
        finally:
            end_run(folder)
            (attempt / RUN_RECORD).unlink(missing_ok=True)
    if code:
        raise _failure(rig.trainer.name, code, log)


def _command(config: EasyR1Config, rig: Rig, keys: Mapping[str, Key], attempt: Path) -> Command:
    if rig.trainer.name == "easyr1":
        return Command([rig.python, "-m", "verl.trainer.main", f"config={attempt / 'easyr1.yaml'}"], on_cpu=True)
    command = build_command(config, rig.trainer, dict(keys), attempt, gpu=False)
    return replace(command, words=[rig.python, *command.words[1:]])


def _follow(command: Sequence[str], environment: Mapping[str, str], log: Path, progress: Progress | None) -> int:
    with log.open("wb") as sink, started(command, environment=environment, log=sink) as process:
        while (code := process.poll()) is None:
            time.sleep(POLL)
            if progress:
                progress.update()
    if progress:
        progress.update()
    return code


def _failure(where: str, code: int, log: Path) -> LadError:
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    error = RunError(
        f"rehearsal, {where}",
        found=f"{how}: {last_error(log)}",
        remedy=f"see {log}; the run on GPUs would most likely fail alike",
    )
    error.exit_code = 128 - code if code < 0 else code
    return error
