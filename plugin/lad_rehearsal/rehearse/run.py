"""The rehearsal's processes: one makes the tiny model, one is the trainer. None outlives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from lad_reasoner.support.processes import run_folder
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.easyr1.keys import Key
from lad_reasoner.training.run.follow import RAW_LOG, describe_failure, follow
from lad_reasoner.training.run.plan import CONFIG_COPY, Command, build_command, next_attempt
from lad_reasoner.training.run.start import run_attempt
from lad_rehearsal.rehearse.model import ModelSource
from lad_rehearsal.rehearse.trainer import Rig

__all__ = ["make_model", "note", "train"]

_REMEDY: Final = "The GPU run would probably fail in the same way"


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
    log = attempt / RAW_LOG
    started = f"{rig.trainer.name} {rig.trainer.version} on the CPU, a minute or two to start; log: {log}"
    command = _command(config, rig, keys, attempt)
    code = run_attempt(command, config, rig.trainer, attempt, rig.environment, total_steps=steps, notes=[started])
    if code:
        raise describe_failure(f"rehearsal, {rig.trainer.name}", code, log, remedy=_REMEDY)


def _command(config: EasyR1Config, rig: Rig, keys: Mapping[str, Key], attempt: Path) -> Command:
    if rig.trainer.name == "easyr1":
        return Command([rig.python, "-m", "verl.trainer.main", f"config={attempt / CONFIG_COPY}"], on_cpu=True)
    return build_command(config, rig.trainer, keys, attempt, gpu=False, python=rig.python)
