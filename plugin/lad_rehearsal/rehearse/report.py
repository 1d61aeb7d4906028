"""The report of a rehearsal: its steps, the changed keys, and what only the real run can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.runtimes import RolloutEngine
from lad_rehearsal.rehearse.model import ModelSource
from lad_rehearsal.rehearse.plan import Change

__all__ = ["Gap", "RehearsalReport", "list_gaps"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that the rehearsal could not cover, and what replaced it, or where to find out."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class RehearsalReport:
    """The result of a rehearsal.

    Attributes:
        seconds: Duration of the command.
        checkpoint: The checkpoint of the last step.
        steps: Metrics of each step, named as in `lad_reasoner.training.metrics`.
        changed: Keys with a different value.
        not_covered: What only the real run can show.
        vllm_settings: vLLM's limits, as verl set them; empty without vLLM.
        vllm_messages: vLLM's warnings, and its information about these limits.
    """

    config: str
    trainer: str
    folder: str
    seconds: float
    checkpoint: str
    steps: Sequence[Mapping[str, float]]
    changed: Sequence[Change]
    not_covered: Sequence[Gap]
    vllm_settings: Mapping[str, str] = field(default_factory=dict)
    vllm_messages: Sequence[str] = ()


def list_gaps(
    config: EasyR1Config,
    source: ModelSource,
    steps: Sequence[Mapping[str, float]],
    *,
    rows: Mapping[str, str],
    engine: RolloutEngine = "transformers",
) -> list[Gap]:
    """Return what a rehearsal of a config for GPUs did not cover; ``rows`` states which of each file were read."""
    return [
        *_model_gaps(config, source),
        *_machine_gaps(config, engine),
        *(Gap(key, value) for key, value in rows.items()),
        *_learning_gaps(steps),
    ]


def _model_gaps(config: EasyR1Config, source: ModelSource) -> Iterator[Gap]:
    name = config["worker.actor.model.model_path"]
    if source.replaces:
        yield Gap("architecture", f"{source.replaces}; a tiny {source.family} replaced it")
    yield Gap("weights", f"a tiny {source.family} replaced {name}: loading and saving at full size were not tried")
    if source.folder is None:
        own = f"{name} is not on this machine, so the package's own were used"
        counts = "They count image tokens like the family's published processor, but not words"
        yield Gap("tokenizer and processor", f"{own}. {counts}")


def _machine_gaps(config: EasyR1Config, engine: RolloutEngine) -> Iterator[Gap]:
    yield Gap("memory", "nothing had the real size; see the estimates of `easyr1 check`")
    yield Gap("speed", "times on a CPU do not predict times on GPUs")
    if engine == "vllm":
        yield Gap("vLLM on a GPU", "vLLM's CPU build ran without CUDA kernels, graphs or sleep mode")
    else:
        yield Gap("vLLM", "transformers sampled the responses on the CPU; --engine vllm uses vLLM")
    yield Gap("precision", "all computation used fp32, without flash attention and packed batches")
    ranks = config["trainer.nnodes"] * config["trainer.n_gpus_per_node"]
    if ranks > 1 or config["worker.rollout.tensor_parallel_size"] > 1:
        yield Gap("several GPUs", f"one process replaced {ranks}: sharding, NCCL and tensor parallelism")
    if other := sorted(set(config["trainer.logger"]) - {"console", "file"}):
        yield Gap("loggers", f"{', '.join(other)}: accounts and network")
    if (path := config["trainer.load_checkpoint_path"]) is not None:
        yield Gap("resuming", f"{path} was not loaded")


def _learning_gaps(steps: Sequence[Mapping[str, float]]) -> Iterator[Gap]:
    if not any(step.get("reward", 0.0) for step in steps):
        why = "no response of the tiny model earned a reward, so every gradient was zero"
        yield Gap("learning", f"{why}; the reward itself was computed for each response")
    else:
        yield Gap("learning", "a few steps of a tiny model show that training runs, not that it improves the model")
