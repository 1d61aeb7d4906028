"""The run: its length, its loggers, where it resumes and what it writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import yaml

from lad_reasoner.support.findings import Finding, error, note, warning
from lad_reasoner.training.metrics import attempts_of
from lad_reasoner.training.preflight.context import Check, Known
from lad_reasoner.training.preflight.model_size import checkpoint_bytes, gigabytes
from lad_reasoner.training.run.checkpoints import TRACKERS, find_last, step_of

__all__ = ["RUN_CHECKS"]

_PATH: Final = "trainer.save_checkpoint_path"

#: Each logger and the package it needs.
LOGGERS: Final[dict[str, str | None]] = {
    "console": None,
    "file": None,
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
}

#: Keys that must not change between the attempts of a run: they set what is trained or the shapes in a checkpoint.
FIXED_KEYS: Final = (
    "worker.actor.model.model_path",
    "worker.actor.model.lora.rank",
    "data.train_files",
    "data.rollout_batch_size",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
)


def check_loggers(known: Known) -> Iterator[Finding]:
    """Loggers exist and their packages are installed."""
    for name in known["trainer.logger"]:
        if not isinstance(name, str) or name not in LOGGERS:
            yield error("trainer.logger", f"there is no logger {name!r}", remedy=f"Use a list of {', '.join(LOGGERS)}")
        elif (package := LOGGERS[name]) is not None and known.trainer is not None and find_spec(package) is None:
            yield error("trainer.logger", f"{name} is not installed", remedy=f"Run: pip install {package}")
        elif name in {"wandb", "swanlab"} and not _has_key(name):
            problem = f"{name} needs {name.upper()}_API_KEY, because a worker cannot ask for the key"
            yield warning("trainer.logger", problem, remedy=f"Log in, or set {name.upper()}_MODE=offline")


def _has_key(logger: str) -> bool:
    """Whether a service's logger has its key, in the environment or from a login, or needs none."""
    mode = os.environ.get(f"{logger.upper()}_MODE", "")
    if os.environ.get(f"{logger.upper()}_API_KEY") or mode in {"offline", "disabled", "local"}:
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    homes = [netrc, Path("~/.swanlab/.netrc").expanduser()]
    return any(home.is_file() and logger in home.read_text(encoding="utf-8", errors="replace") for home in homes)


def check_steps(known: Known) -> Iterator[Finding]:
    """There is at least one step, and validation and saving fall within the run."""
    key = "trainer.total_epochs" if known["trainer.max_steps"] is None else "trainer.max_steps"
    total = known.total_steps
    if total is None:
        return
    if total < 1:
        yield error(key, f"{known[key]} makes {total} steps", remedy="Train at least one step")
        return
    for name in ("trainer.save_freq", "trainer.val_freq"):
        if known[name] > total:
            yield warning(name, f"{known[name]} exceeds the {total} steps of the run, so only the last step counts")
    if (warmup := known["worker.actor.optim.lr_warmup_steps"]) is not None and warmup >= total:
        problem = f"the learning rate is never reached: {warmup} is not below {total}, the steps of the run"
        yield warning("worker.actor.optim.lr_warmup_steps", problem)


def check_epochs(known: Known) -> Iterator[Finding]:
    """Report the length in steps and epochs: a large batch leaves few steps, and drops the remaining pairs."""
    per_epoch, batch = known.steps_per_epoch, known["data.rollout_batch_size"]
    if not per_epoch or known.train is None or batch < 1:
        return
    pairs, lost = known.train.rows, known.train.rows - per_epoch * batch
    epoch = f"{pairs} pairs at {batch} per step are {per_epoch} {'step' if per_epoch == 1 else 'steps'} per epoch"
    epoch += f", {lost} pairs left over each time" if lost else ""
    if (steps := known["trainer.max_steps"]) is not None:
        yield note("trainer.max_steps", f"{epoch}; {steps} steps are {steps / per_epoch:.1f} epochs")
    else:
        epochs = known["trainer.total_epochs"]
        yield note("trainer.total_epochs", f"{epoch}; {epochs} epochs are {epochs * per_epoch} steps")


def check_val_only(known: Known) -> Iterator[Finding]:
    """A run that only validates does validate."""
    if known["trainer.val_only"] and not known["trainer.val_before_train"]:
        yield error("trainer.val_only", "EasyR1 would train: val_before_train is false", remedy="Set both")


def check_resume(known: Known) -> Iterator[Finding]:
    """EasyR1 resumes from an existing checkpoint folder by itself."""
    if known["trainer.load_checkpoint_path"] is not None:
        yield from _check_given_checkpoint(Path(known["trainer.load_checkpoint_path"]))
        return
    run_dir, name = known.config.run_dir, known.trainer.name if known.trainer else "easyr1"
    for other, tracker in TRACKERS.items():
        if other != name and (run_dir / tracker).is_file():
            problem = f"{name} cannot resume from the checkpoints of {other} in {run_dir}"
            yield warning(_PATH, problem, remedy="Choose another folder")
    last = find_last(run_dir, name)
    if last is None:
        return
    if not known["trainer.find_last_checkpoint"]:
        yield warning("trainer.find_last_checkpoint", f"it is false, and {last} may be overwritten")
        return
    step, total = step_of(last), known.total_steps
    if total is not None and step >= total:
        problem = f"{last} is at step {step}, so nothing is left of {total} steps"
        remedy = "Choose another trainer.save_checkpoint_path, or more trainer.max_steps"
        yield error("trainer.find_last_checkpoint", problem, remedy=remedy)
    yield from _check_unchanged(known, last)


def _check_given_checkpoint(path: Path) -> Iterator[Finding]:
    key = "trainer.load_checkpoint_path"
    try:
        step_of(path)
    except ValueError:
        yield error(key, f"{path} is not a checkpoint", remedy="Name a folder global_step_<n>, not its actor folder")
        return
    if not (path / "actor").is_dir():
        yield error(key, f"{path} has no actor folder, so it is not a checkpoint of EasyR1 or verl")


def _check_unchanged(known: Known, last: Path) -> Iterator[Finding]:
    copies = [attempt / "easyr1.yaml" for attempt in attempts_of(known.config.run_dir)]
    copies = [copy for copy in copies if copy.is_file()]
    if not copies:
        return
    before: Any = yaml.safe_load(copies[-1].read_text(encoding="utf-8"))
    for key in FIXED_KEYS:
        value: Any = before
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and value != known[key]:
            problem = f"it is {known[key]!r}, but the run of {last} has {value!r}"
            yield warning(key, problem, remedy="Choose another trainer.save_checkpoint_path for another run")


def check_save_path(known: Known) -> Iterator[Finding]:
    """The checkpoint folder can be written to."""
    existing = _existing(known.config.run_dir)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        yield error(_PATH, f"{existing} is not writable")


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def check_disk(known: Known) -> Iterator[Finding]:
    """The disk has room for the checkpoints that will be kept."""
    size = checkpoint_bytes(known)
    total, every, limit = known.total_steps, known["trainer.save_freq"], known["trainer.save_limit"]
    if size is None or total is None or total < 1:
        return
    count = 1 if every < 1 else -(-total // every)
    kept = min(count, limit + 1) if limit > 0 else count
    free = shutil.disk_usage(_existing(known.config.run_dir)).free
    if size * kept > free:
        problem = f"{kept} checkpoints need about {gigabytes(size * kept)} (estimated), and {gigabytes(free)} are free"
        remedy = "Lower trainer.save_limit, raise trainer.save_freq, or set trainer.save_model_only=true"
        yield warning(_PATH, problem, remedy=remedy)


RUN_CHECKS: Final[tuple[Check, ...]] = (
    check_loggers,
    check_steps,
    check_epochs,
    check_val_only,
    check_resume,
    check_save_path,
    check_disk,
)
