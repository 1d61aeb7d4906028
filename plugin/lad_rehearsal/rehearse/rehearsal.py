"""A rehearsal: from a config to a few steps of it on a CPU, and a report of what they do not show."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lad_reasoner.support.console import echo
from lad_reasoner.support.errors import RunError, UsageError
from lad_reasoner.support.files import locked
from lad_reasoner.support.findings import Finding
from lad_reasoner.task.task import name_prompt
from lad_reasoner.training.easyr1.config import EasyR1Config, load_config, read_keys
from lad_reasoner.training.installed import TrainerName
from lad_reasoner.training.metrics import read_metrics
from lad_reasoner.training.preflight import CHECKS
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.preflight.data import check_batches_of_data
from lad_reasoner.training.preflight.files import check_model_is_there, check_offline
from lad_reasoner.training.preflight.machine import MACHINE_CHECKS
from lad_reasoner.training.run.checkpoints import find_last
from lad_reasoner.training.run.start import end_forgotten
from lad_reasoner.training.runtimes import RolloutEngine
from lad_reasoner.training.verl.structured import refuse_structured
from lad_rehearsal.rehearse.data import require_parquet, take_rows
from lad_rehearsal.rehearse.model import ModelSource, find_source
from lad_rehearsal.rehearse.plan import PROMPTS, scale_down, trained_roles
from lad_rehearsal.rehearse.report import RehearsalReport, list_gaps
from lad_rehearsal.rehearse.run import make_model, train
from lad_rehearsal.rehearse.runtime import RehearsalRuntime, find_runtime
from lad_rehearsal.rehearse.synthetic import make_pairs
from lad_rehearsal.rehearse.vllm_log import read_messages, read_settings

__all__ = ["RehearsalOptions", "check_config", "rehearse"]

#: Marks a folder as a rehearsal's, so that the next rehearsal may empty it.
MARKER: Final = "rehearsal.txt"

#: Additional rows of the training file, because rows that are too long are dropped.
SPARE_ROWS: Final = 4
VALIDATION_ROWS: Final = 4

#: Checks of what a rehearsal replaces: the machine, the model and the batch size.
_NOT_FOR_REHEARSALS: Final = {*MACHINE_CHECKS, check_model_is_there, check_offline, check_batches_of_data}

_BUILD: Final = {
    "data.train_files": "lad build grpo --mvtec DIR --visa DIR --out {}",
    "data.val_files": "lad build loco --root DIR --out {}",
}


@dataclass(frozen=True, slots=True)
class RehearsalOptions:
    """How to rehearse.

    Attributes:
        steps: Steps to train, at least 1.
        out: Folder of the rehearsal; None appends "-rehearsal" to the config's checkpoint folder.
        trainer: EasyR1 or verl; None uses the one that is installed.
        synthetic: Whether synthetic pairs replace the config's data.
        engine: What samples the responses.
        structured: Whether the responses are held to the answer template.
    """

    steps: int = 2
    out: Path | None = None
    trainer: TrainerName | None = None
    synthetic: bool = False
    engine: RolloutEngine = "transformers"
    structured: bool = False


def rehearse(
    words: Sequence[str], options: RehearsalOptions, *, judge: Callable[[Sequence[Finding]], None] | None
) -> RehearsalReport:
    """Rehearse ``config=FILE key=value ...``.

    Args:
        words: The words of the command line.
        options: How to rehearse.
        judge: Receives the findings of the checks, and raises if they must stop the rehearsal; None runs no checks.

    Raises:
        UsageError: A key or an option is wrong, or the checks find an error.
        DataError: A file of the config is missing or broken.
        RunError: The trainer failed, or another process rehearses in this folder.
    """
    runtime = find_runtime(options.trainer, engine=options.engine)
    config = load_config(words, read_keys(runtime.trainer), structured=options.structured)
    refuse_structured(config, runtime.trainer.name, vllm=options.engine == "vllm")
    folder = (options.out or Path(f"{config.run_dir}-rehearsal")).expanduser().absolute()
    with locked(folder):
        return _rehearse(config, runtime, folder, options, judge)


def _rehearse(
    config: EasyR1Config,
    runtime: RehearsalRuntime,
    folder: Path,
    options: RehearsalOptions,
    judge: Callable[[Sequence[Finding]], None] | None,
) -> RehearsalReport:
    started = time.monotonic()
    _refuse_other(folder)
    if options.synthetic:
        config = _with_synthetic_pairs(config, _emptied(folder) / "synthetic")
    files = {key: require_parquet(key, config[key], build=build.format(config[key])) for key, build in _BUILD.items()}
    if judge is not None:
        judge(check_config(config, runtime, steps=options.steps))
    source = find_source(config, runtime.trainer.name)
    rows = _take_rows(files, folder if options.synthetic else _emptied(folder), steps=options.steps)
    scaled, changes = scale_down(config, steps=options.steps, paths=_paths(config, folder), engine=options.engine)
    steps, log = _run(scaled, runtime, source, tokenizer=_own_tokenizer(config), steps=options.steps)
    return RehearsalReport(
        config=str(config.source or "the command line"),
        trainer=f"{runtime.trainer.name} {runtime.trainer.version}",
        folder=str(folder),
        seconds=time.monotonic() - started,
        checkpoint=str(find_last(scaled.run_dir, runtime.trainer.name)),
        steps=steps,
        changed=changes,
        not_covered=list_gaps(config, source, steps, rows=rows, engine=options.engine),
        vllm_settings=read_settings(log) if options.engine == "vllm" else {},
        vllm_messages=read_messages(log) if options.engine == "vllm" else (),
    )


def check_config(config: EasyR1Config, runtime: RehearsalRuntime, *, steps: int) -> list[Finding]:
    """Run the checks that apply to a rehearsal.

    It uses another machine, a tiny model instead of the config's, which may not be trained or downloaded yet, and
    small batches, which need less data.
    """
    if config["trainer.max_steps"] is None:  # the epochs of the real data do not matter
        config = config.replace(trainer__max_steps=steps)
    known = Known(config=config, trainer=runtime.trainer, gpu=False)
    checks = [check for check in CHECKS if check not in _NOT_FOR_REHEARSALS]
    return [finding for check in checks for finding in check(known)]


def _refuse_other(folder: Path) -> None:
    """Reject a folder that is not a rehearsal's, before it would be emptied."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not (folder / MARKER).is_file():
        problem = "the folder is not empty and does not contain a rehearsal"
        raise UsageError(problem, where=folder, remedy="Choose another folder with --out")


def _emptied(folder: Path) -> Path:
    """Empty the rehearsal's folder, end the processes of an earlier rehearsal in it, and return it."""
    if folder.exists():
        end_forgotten(folder / "run")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).write_text("Made by `easyr1 rehearse`, which empties this folder at its next start.\n")
    return folder


def _with_synthetic_pairs(config: EasyR1Config, folder: Path) -> EasyR1Config:
    echo("making synthetic pairs (lad build)", err=True)
    template = Path(config["data.format_prompt"] or "")
    prompt = name_prompt(template.read_text(encoding="utf-8", errors="replace")) if template.is_file() else None
    pairs = make_pairs(folder, prompt=prompt)
    return config.replace(**{key.replace(".", "__"): path for key, path in pairs.items()})


def _take_rows(files: Mapping[str, Path], folder: Path, *, steps: int) -> dict[str, str]:
    """Write the rows for training and validation; return a sentence for each file about their number."""
    wanted = {"train": steps * PROMPTS + SPARE_ROWS, "val": VALIDATION_ROWS}
    notes = {}
    for (key, file), (name, count) in zip(files.items(), wanted.items(), strict=True):
        taken, total = take_rows(file, folder / f"{name}.parquet", count=count)
        notes[key] = f"{taken} of {total} rows were read; `lad check {file}` checks all of them"
    return notes


def _run(
    scaled: EasyR1Config,
    runtime: RehearsalRuntime,
    source: ModelSource,
    *,
    tokenizer: Path | None,
    steps: int,
) -> tuple[list[dict[str, float]], Path]:
    """Make the model, train, and return the metrics and the trainer's log, if no step and no checkpoint is missing."""
    make_model(source, runtime, Path(scaled["worker.actor.model.model_path"]), tokenizer=tokenizer)
    log = train(scaled, runtime, steps=steps)
    rows = read_metrics(scaled.run_dir)
    done = [row for row in rows if math.isfinite(row.get("reward", math.nan))]
    checkpoint = "a" if find_last(scaled.run_dir, runtime.trainer.name) else "no"
    if len(done) != steps or checkpoint == "no":
        problem = f"the trainer made {len(done)} of {steps} steps with a reward and {checkpoint} checkpoint"
        raise RunError(problem, where="rehearsal", remedy=f"See {log}")
    return rows, log


def _paths(config: EasyR1Config, folder: Path) -> dict[str, str]:
    """Return the keys of files and folders that the rehearsal creates, with their values."""
    roles = trained_roles(config)
    names = {f"worker.{role}.model.{name}_path" for role in roles for name in ("model", "tokenizer")}
    return {
        "data.train_files": str(folder / "train.parquet"),
        "data.val_files": str(folder / "val.parquet"),
        "trainer.save_checkpoint_path": str(folder / "run"),
        **dict.fromkeys(sorted(names), str(folder / "model")),
    }


def _own_tokenizer(config: EasyR1Config) -> Path | None:
    """Return the tokenizer's folder if it is not the model's."""
    path, model = (config[f"worker.actor.model.{name}_path"] for name in ("tokenizer", "model"))
    return Path(path) if path != model and Path(path).is_dir() else None
