"""The rehearsal's processes: one makes the tiny model, one is the trainer. None outlives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console

from lad_reasoner.support.processes import run_folder
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.easyr1.keys import Key
from lad_reasoner.training.run.attempt import (
    CONFIG_COPY,
    RAW_LOG,
    Command,
    describe_failure,
    follow,
    next_attempt,
    recorded,
)
from lad_reasoner.training.run.launch import build_command
from lad_reasoner.training.run.progress import Progress
from lad_rehearsal.rehearse.model import ModelSource
from lad_rehearsal.rehearse.trainer import Rig

__all__ = ["make_model", "note", "train"]

_REMEDY: Final = "the run on GPUs would most likely fail alike"


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
    command = [rig.python, "-m", "lad_rehearsal.rehearse.tiny_model", *words]
    log = out.with_name("model.log")
    with run_folder() as folder:
        code = follow(command, rig.environment(folder), log)
    if code:
        raise describe_failure("rehearsal, tiny model", code, log, remedy=_REMEDY)


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
    attempt = next_attempt(config.run_dir)
    attempt.mkdir(parents=True)
    (attempt / CONFIG_COPY).write_text(yaml.safe_dump(config.as_tree(), sort_keys=False), encoding="utf-8")
    command = _command(config, rig, keys, attempt)
    log = attempt / RAW_LOG
    logs = config.run_dir if rig.trainer.name == "easyr1" else attempt
    with run_folder() as folder, Progress(logs, total=steps) as progress:
        progress.note(f"{rig.trainer.name} {rig.trainer.version} on the CPU, a minute or two to start; log: {log}")
        with recorded(attempt, command, folder):
            code = follow(command.words, rig.environment(folder), log, progress)
    if code:
        raise describe_failure(f"rehearsal, {rig.trainer.name}", code, log, remedy=_REMEDY)


def _command(config: EasyR1Config, rig: Rig, keys: Mapping[str, Key], attempt: Path) -> Command:
    if rig.trainer.name == "easyr1":
        return Command([rig.python, "-m", "verl.trainer.main", f"config={attempt / CONFIG_COPY}"], on_cpu=True)
    command = build_command(config, rig.trainer, dict(keys), attempt, gpu=False)
    return replace(command, words=[rig.python, *command.words[1:]])
