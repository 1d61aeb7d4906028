"""What the checks of a run read: the config, the trainer, the data and the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from lad_reasoner.pairs.families import Family, find_family
from lad_reasoner.pairs.tokens import QWEN2_5_VL, ProcessorPixels
from lad_reasoner.support.findings import Finding
from lad_reasoner.task.task import prompt_text
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.installed import Trainer, TrainerName
from lad_reasoner.training.preflight.pair_file import PairFile

__all__ = ["Check", "Known"]


@dataclass(frozen=True)
class Known:
    """Everything known before a run.

    Attributes:
        config: The EasyR1 config.
        trainer: The installed trainer, or None.
        gpu: Whether this machine has a GPU.
    """

    config: EasyR1Config
    trainer: Trainer | None = None
    gpu: bool = False

    def __getitem__(self, key: str) -> Any:
        return self.config[key]

    def trains_with(self, name: TrainerName) -> bool:
        """Whether this trainer is installed."""
        return self.trainer is not None and self.trainer.name == name

    @cached_property
    def train(self) -> PairFile | None:
        """The training parquet, or None if it is not a readable file here."""
        return self._pair_file("data.train_files")

    @cached_property
    def val(self) -> PairFile | None:
        """The validation parquet, or None if it is not a readable file here."""
        return self._pair_file("data.val_files")

    def render(self, problem: str) -> str:
        """Return a prompt's text. A missing or broken template adds nothing; another check reports it."""
        return _render(self["data.format_prompt"], problem)

    @property
    def has_images(self) -> bool:
        """Whether the training file has images, or cannot be read here."""
        return self.train is None or bool(self.train.problem) or any(self.train.images) or any(self.train.markers)

    @property
    def processor(self) -> ProcessorPixels:
        """The model family's resize rule, by its config or name; Qwen2.5-VL's where neither tells."""
        return QWEN2_5_VL if self.family is None else self.family.processor

    @property
    def family(self) -> Family | None:
        """The model's family, by its config or name; None if neither is known."""
        return find_family(str(self.model_config.get("model_type") or self["worker.actor.model.model_path"] or ""))

    @cached_property
    def model_config(self) -> Mapping[str, Any]:
        """The model's ``config.json``, empty where the model is not a readable folder here."""
        path = Path(str(self["worker.actor.model.model_path"] or "")) / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
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


#: Yields what is wrong with a run.
Check = Callable[[Known], Iterator[Finding]]


@lru_cache(maxsize=256)  # the pairs of a file share a few problems
def _render(template: str | None, problem: str) -> str:
    try:
        return prompt_text(problem, Path(template or "").read_text(encoding="utf-8"))
    except Exception:  # a template is code: its expressions can fail in any way
        return problem
