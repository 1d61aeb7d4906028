"""A rehearsal: from a config to a few steps of it on a CPU, and a report of what they do not show."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import RunError, UsageError
from lad_reasoner.training.easyr1.config import EasyR1Config, load_config, read_keys
from lad_reasoner.training.easyr1.keys import Key
from lad_reasoner.training.installed import TrainerName
from lad_reasoner.training.metrics import attempts_of, read_metrics
from lad_reasoner.training.preflight import CHECKS
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.preflight.files import check_model_is_there
from lad_reasoner.training.preflight.machine import MACHINE_CHECKS
from lad_reasoner.training.preflight.preflight import refuse_errors
from lad_reasoner.training.run.checkpoints import find_last
from lad_reasoner.training.run.follow import RAW_LOG
from lad_reasoner.training.run.start import end_forgotten
from lad_rehearsal.rehearse.data import require_parquet, take_rows
from lad_rehearsal.rehearse.model import ModelSource, find_source
from lad_rehearsal.rehearse.plan import PROMPTS, scale_down, trained_roles
from lad_rehearsal.rehearse.report import Report, list_gaps, print_report
from lad_rehearsal.rehearse.run import make_model, note, train
from lad_rehearsal.rehearse.synthetic import draw_pairs
from lad_rehearsal.rehearse.trainer import Rig, find_rig

Row = dict[str, float]

__all__ = ["RehearsalOptions", "rehearse"]

#: Marks a folder as a rehearsal's, which the next one may empty.
MARKER: Final = "rehearsal.txt"

#: Rows taken of the training file: some to spare, because a row may be too long and be left out.
SPARE_ROWS: Final = 4
VALIDATION_ROWS: Final = 4

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
        check: Whether the checks' errors stop the rehearsal.
        as_json: Whether the report is JSON.
    """

    steps: int = 2
    out: Path | None = None
    trainer: TrainerName | None = None
    synthetic: bool = False
    check: bool = True
    as_json: bool = False


def rehearse(words: Sequence[str], options: RehearsalOptions) -> None:
    """Rehearse ``config=FILE key=value ...`` and print the report.

    Raises:
        UsageError: A key or an option is wrong, or the checks find an error.
        DataError: A file of the config is missing or broken.
        RunError: The trainer failed.
    """
    started = time.monotonic()
    rig = find_rig(options.trainer)
    keys = read_keys(rig.trainer)
    config = load_config(words, keys)
    folder = (options.out or Path(f"{config.run_dir}-rehearsal")).expanduser().absolute()
    _refuse_other(folder)
    if options.synthetic:
        config = _with_drawn_pairs(config, _emptied(folder) / "synthetic")
    files = {key: require_parquet(key, config[key], build=build.format(config[key])) for key, build in _BUILD.items()}
    if options.check:
        _check(config, rig, keys)
    source = find_source(config, rig.trainer.name)
    rows = _take_rows(files, folder if options.synthetic else _emptied(folder), steps=options.steps)
    scaled, changes = scale_down(config, steps=options.steps, paths=_paths(config, folder))
    steps = _run(scaled, rig, keys, source, tokenizer=_own_tokenizer(config), steps=options.steps)
    report = Report(
        config=str(config.source or "the command line"),
        trainer=f"{rig.trainer.name} {rig.trainer.version}",
        folder=str(folder),
        seconds=time.monotonic() - started,
        checkpoint=str(find_last(scaled.run_dir, rig.trainer.name)),
        steps=steps,
        changed=changes,
        not_covered=list_gaps(config, source, steps, rows=rows),
    )
    print_report(report, as_json=options.as_json)


def _check(config: EasyR1Config, rig: Rig, keys: Mapping[str, Key]) -> None:
    """Stop at what is known to be wrong.

    What the machine must have is left out, for this is another machine; and so is the model, which may not have been
    trained yet: a tiny one stands in for it.

    Raises:
        UsageError: A check found an error.
    """
    known = Known(config=config, trainer=rig.trainer, keys=keys, gpu=False)
    checks = [check for check in CHECKS if check not in {*MACHINE_CHECKS, check_model_is_there}]
    refuse_errors([finding for check in checks for finding in check(known)])


def _refuse_other(folder: Path) -> None:
    """Refuse to empty a folder that no rehearsal made.

    Raises:
        UsageError: It holds something else.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not (folder / MARKER).is_file():
        raise UsageError(
            folder, found="something that is no rehearsal", expected="an empty folder", remedy="choose --out DIR"
        )


def _emptied(folder: Path) -> Path:
    """Return the rehearsal's folder, emptied of an earlier rehearsal; what that one left running is ended."""
    if folder.exists():
        end_forgotten(folder / "run")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).write_text("Made by `easyr1 rehearse`, which empties this folder at its next start.\n")
    return folder


def _with_drawn_pairs(config: EasyR1Config, folder: Path) -> EasyR1Config:
    note("drawing pairs (lad build)")
    return config.replace(**{key.replace(".", "__"): path for key, path in draw_pairs(folder).items()})


def _take_rows(files: Mapping[str, Path], folder: Path, *, steps: int) -> dict[str, str]:
    """Write the rows that are trained and validated on; return in words how many of each file."""
    wanted = {"train": steps * PROMPTS + SPARE_ROWS, "val": VALIDATION_ROWS}
    said = {}
    for (key, file), (name, count) in zip(files.items(), wanted.items(), strict=True):
        taken, total = take_rows(file, folder / f"{name}.parquet", count=count)
        said[key] = f"{taken} of {total} rows were read; `lad check {file}` looks at all"
    return said


def _run(
    scaled: EasyR1Config, rig: Rig, keys: Mapping[str, Key], source: ModelSource, *, tokenizer: Path | None, steps: int
) -> list[Row]:
    """Make the model, train, and return the metrics.

    Raises:
        RunError: The trainer ended well but did not do what it was told.
    """
    make_model(source, rig, Path(scaled["worker.actor.model.model_path"]), tokenizer=tokenizer)
    train(scaled, rig, keys, steps=steps)
    rows = read_metrics(scaled.run_dir)
    done = [row for row in rows if math.isfinite(row.get("reward", math.nan))]
    if len(done) != steps or find_last(scaled.run_dir, rig.trainer.name) is None:
        found = f"{len(done)} steps with a reward and "
        found += "a checkpoint" if find_last(scaled.run_dir, rig.trainer.name) else "no checkpoint"
        log = attempts_of(scaled.run_dir)[-1] / RAW_LOG
        raise RunError("rehearsal", found=found, expected=f"{steps} steps and one", remedy=f"see {log}")
    return rows


def _paths(config: EasyR1Config, folder: Path) -> dict[str, str]:
    """Return the keys of what the rehearsal makes for itself."""
    roles = trained_roles(config)
    names = {f"worker.{role}.model.{name}_path" for role in roles for name in ("model", "tokenizer")}
    return {
        "data.train_files": str(folder / "train.parquet"),
        "data.val_files": str(folder / "val.parquet"),
        "trainer.save_checkpoint_path": str(folder / "run"),
        **dict.fromkeys(sorted(names), str(folder / "model")),
    }


def _own_tokenizer(config: EasyR1Config) -> Path | None:
    """Return the tokenizer's folder where the config names another than the model's."""
    path, model = (config[f"worker.actor.model.{name}_path"] for name in ("tokenizer", "model"))
    return Path(path) if path != model and Path(path).is_dir() else None
