"""What the checks of a run look at, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from lad_reasoner.task import prompt_text
from lad_reasoner.tokens import QWEN2_5_VL, QWEN3_VL, ProcessorPixels
from lad_reasoner.trainers.checks.pairs import PairFile
from lad_reasoner.trainers.config import EasyR1Config
from lad_reasoner.trainers.grammar import Key
from lad_reasoner.trainers.installed import Trainer

__all__ = ["Finding", "Known", "error", "note", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: An error ends the run or makes it worthless; a warning is a likely mistake; a note is no fault.
        where: The config key or path at fault.
        found: What was there.
        expected: What should have been there, if that is not plain.
        remedy: What to do.
    """

    severity: Literal["error", "warning", "note"]
    where: str
    found: str
    expected: str = ""
    remedy: str = ""

    @property
    def is_error(self) -> bool:
        """Whether it must stop the run."""
        return self.severity == "error"

    def __str__(self) -> str:
        found = self.found if self.severity == "note" else f"found {self.found}"
        line = f"{self.severity}: {self.where}: {found}"
        line += f", expected {self.expected}" if self.expected else ""
        return line + (f"; {self.remedy}" if self.remedy else "")


def error(where: str, found: str, *, expected: str = "", remedy: str = "") -> Finding:
    """Return a finding that must stop the run."""
    return Finding("error", where, found, expected, remedy)


def warning(where: str, found: str, *, expected: str = "", remedy: str = "") -> Finding:
    """Return a finding that the user should know."""
    return Finding("warning", where, found, expected, remedy)


def note(where: str, found: str, *, remedy: str = "") -> Finding:
    """Return what the user may want to know; nothing is wrong."""
    return Finding("note", where, found, remedy=remedy)


@dataclass(frozen=True)
class Known:
    """What is known before a run.

    Attributes:
        config: The EasyR1 config.
        trainer: What is installed, if anything.
        keys: EasyR1's keys.
        gpu: Whether this machine shows a GPU.
    """

    config: EasyR1Config
    trainer: Trainer | None
    keys: Mapping[str, Key]
    gpu: bool

    def __getitem__(self, key: str) -> Any:
        return self.config[key]

    @cached_property
    def train(self) -> PairFile | None:
        """The training parquet, or None if it is not a readable file here."""
        return self._pair_file("data.train_files")

    @cached_property
    def val(self) -> PairFile | None:
        """The validation parquet, or None if it is not a readable file here."""
        return self._pair_file("data.val_files")

    def render(self, problem: str) -> str:
        """Return a prompt's text; a missing or broken template, which has a check of its own, adds nothing."""
        return _render(self["data.format_prompt"], problem)

    @property
    def processor(self) -> ProcessorPixels:
        """The model family's resize rule, by its config or name; Qwen2.5-VL's where neither tells."""
        name = str(self.model_config.get("model_type") or self["worker.actor.model.model_path"] or "").lower()
        return QWEN3_VL if "qwen3" in name else QWEN2_5_VL

    @cached_property
    def model_config(self) -> Mapping[str, Any]:
        """The model's ``config.json``, empty where the model is not a readable folder here."""
        path = Path(str(self["worker.actor.model.model_path"] or "")) / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return config if isinstance(config, dict) else {}

    @property
    def world_size(self) -> int:
        """GPUs of the run."""
        return int(self["trainer.nnodes"] * self["trainer.n_gpus_per_node"])

    @property
    def steps_per_epoch(self) -> int | None:
        """Full batches in the training set; the rest is dropped."""
        if self.train is None:
            return None
        batch = max(int(self["data.rollout_batch_size"]), 1)
        part = int(self["data.mini_rollout_batch_size"] or batch)  # the loader's batch; EasyR1 counts steps by it
        return self.train.rows // max(part, 1) * part // batch

    @property
    def total_steps(self) -> int | None:
        """Steps of the run."""
        if self["trainer.max_steps"] is not None:
            return int(self["trainer.max_steps"])
        return None if self.steps_per_epoch is None else self.steps_per_epoch * int(self["trainer.total_epochs"])

    def _pair_file(self, key: str) -> PairFile | None:
        path = Path(str(self[key]).partition("@")[0])
        return PairFile.read(path, self.config) if path.suffix == ".parquet" and path.is_file() else None


@lru_cache(maxsize=256)  # the pairs of a file share a few problems
def _render(template: str | None, problem: str) -> str:
    from jinja2 import TemplateError

    try:
        return prompt_text(problem, Path(template or "").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, TemplateError):
        return problem
