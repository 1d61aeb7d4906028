"""What a rehearsal showed, what it changed to be possible, and what only the real run can show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.run.follow import describe_step
from lad_rehearsal.rehearse.model import ModelSource
from lad_rehearsal.rehearse.plan import Change

__all__ = ["Gap", "Report", "list_gaps", "print_report"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that the rehearsal could not cover.

    Attributes:
        what: In a word or two.
        why: What stood in its place, or where to find out.
    """

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome.

    Attributes:
        config: The config's file.
        trainer: Its name and version.
        folder: Where everything of the rehearsal lies.
        seconds: From command to end.
        checkpoint: What the last step saved.
        steps: Metrics of each step, as `lad_reasoner.training.metrics` names them.
        changed: Keys that were set otherwise.
        not_covered: What only the real run can show.
    """

    config: str
    trainer: str
    folder: str
    seconds: float
    checkpoint: str
    steps: Sequence[Mapping[str, float]]
    changed: Sequence[Change]
    not_covered: Sequence[Gap]


def list_gaps(
    config: EasyR1Config, source: ModelSource, steps: Sequence[Mapping[str, float]], *, rows: Mapping[str, str]
) -> list[Gap]:
    """Return what a rehearsal of a config did not cover.

    Args:
        config: The config for GPUs.
        source: What the tiny model was made from.
        steps: The metrics.
        rows: Which rows of each file were read.
    """
    return [
        *_model_gaps(config, source),
        *_machine_gaps(config),
        *(Gap(key, value) for key, value in rows.items()),
        *_learning_gaps(steps),
    ]


def _model_gaps(config: EasyR1Config, source: ModelSource) -> Iterator[Gap]:
    name = config["worker.actor.model.model_path"]
    if source.replaces:
        yield Gap("architecture", f"{source.replaces}; a tiny {source.family} stood in its place")
    yield Gap("weights", f"a tiny {source.family} stood in for {name}: loading and saving at size were not tried")
    if source.folder is None:
        yield Gap(
            "tokenizer and processor",
            f"{name} is not on this machine, so the package's own were used: image tokens are counted as the family's "
            "published processor does, words are not",
        )


def _machine_gaps(config: EasyR1Config) -> Iterator[Gap]:
    yield Gap("memory", "nothing of the real size was held; see the estimates of `easyr1 check`")
    yield Gap("speed", "times here say nothing of GPUs")
    yield Gap("vLLM", "responses were sampled by transformers on the CPU")
    yield Gap("precision", "everything was computed in fp32, with neither flash attention nor packed batches")
    ranks = config["trainer.nnodes"] * config["trainer.n_gpus_per_node"]
    if ranks > 1 or config["worker.rollout.tensor_parallel_size"] > 1:
        yield Gap("several GPUs", f"one process stood in for {ranks}: sharding, NCCL and tensor parallelism")
    if other := sorted(set(config["trainer.logger"]) - {"console", "file"}):
        yield Gap("loggers", f"{', '.join(other)}: accounts and network")
    if (path := config["trainer.load_checkpoint_path"]) is not None:
        yield Gap("resuming", f"{path} was not loaded")


def _learning_gaps(steps: Sequence[Mapping[str, float]]) -> Iterator[Gap]:
    if not any(step.get("reward", 0.0) for step in steps):
        why = "no response of the tiny model earned anything, so every gradient was zero"
        yield Gap("learning", f"{why}; the reward itself was computed for each")
    else:
        yield Gap("learning", "a few steps of a tiny model show that training runs, not that it gets anywhere")


def print_report(report: Report, *, as_json: bool) -> None:
    """Print the report on stdout: a list for people, or JSON for programs."""
    if as_json:
        print(json.dumps(asdict(report), indent=1, default=str))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Rehearsed {report.config} with {report.trainer} in {report.seconds:.0f} s: {report.folder}")
    trained = [step for step in report.steps if "reward" in step]
    for step in trained:
        console.print(f"  {describe_step(step, len(trained))}", markup=False)
    console.print(f"  checkpoint {report.checkpoint}", markup=False)
    console.print("Changed for the rehearsal:", style="bold")
    for change in report.changed:
        line = f"  {change.key}: {_short(change.was)} -> {_short(change.now)} ({change.why})"
        console.print(line, markup=False)
    console.print("Not covered:", style="bold")
    for gap in report.not_covered:
        console.print(f"  {gap.what}: {gap.why}", markup=False)


def _short(value: Any) -> str:
    return Path(value).name if isinstance(value, str) and value.startswith("/") else str(value)
