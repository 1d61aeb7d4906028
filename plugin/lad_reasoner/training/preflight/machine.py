"""What is installed and what the machine has. Memory is estimated, so it only warns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from packaging.requirements import Requirement

from lad_reasoner.support.errors import UsageError, install_hint
from lad_reasoner.support.findings import Finding, error, note, warning
from lad_reasoner.support.packages import installed_version
from lad_reasoner.task.task import LABELS
from lad_reasoner.training.installed import gpu_count, gpu_memory, joins_cluster
from lad_reasoner.training.preflight.algorithm import CHOICES
from lad_reasoner.training.preflight.context import Check, Known
from lad_reasoner.training.preflight.model_size import GIB, Memory, gigabytes, training_memory
from lad_reasoner.training.verl.overrides import translate
from lad_reasoner.training.verl.structured import refuse_structured

__all__ = ["MACHINE_CHECKS", "describe_memory"]

#: What EasyR1 needs and does not declare, or declares too widely.
EASYR1_NEEDS: Final = (
    "omegaconf<2.4",
    "transformers>=4.54,<5",
    "vllm>=0.8",
    "flash-attn",
    "einops",
    "msgspec",
    "qwen-vl-utils",
    "torch",
)
#: What verl needs and does not declare; the rollout engine only with a GPU.
VERL_NEEDS: Final = ("torch", "transformers>=5.5.3", "TransferQueue>=0.1.10", "cachetools", "qwen-vl-utils")
VERL_GPU_NEEDS: Final = ("vllm",)


def check_trainer(known: Known) -> Iterator[Finding]:
    """A trainer is installed."""
    if known.trainer is None:
        remedy = install_hint("cpu", "vllm", "easyr1")
        yield error("trainer", "neither EasyR1 nor verl is installed", remedy=remedy)


def check_translation(known: Known) -> Iterator[Finding]:
    """The installed trainer supports the config: verl lacks some of EasyR1's keys."""
    if not known.trains_with("verl"):
        return
    try:
        translate(known.config)
    except UsageError as fault:
        if not _is_reported_elsewhere(known, fault.where):
            yield error(fault.where, fault.problem, remedy=fault.remedy)
    except OSError:
        return  # a missing file, reported by its own check


def _is_reported_elsewhere(known: Known, key: str) -> bool:
    """Whether EasyR1 rejects the value too, which has its own check."""
    names = CHOICES.get(key)
    return known.config.values.get(key, "") is None or (names is not None and known[key] not in names)


def check_structured(known: Known) -> Iterator[Finding]:
    """Structured rollouts have an engine that can hold them to the template."""
    if known.trainer is None or not known.config.structured:
        return
    try:
        refuse_structured(known.config, known.trainer.name, vllm=known.gpu or joins_cluster())
    except UsageError as fault:
        yield error(fault.where or "data.max_response_length", fault.problem, remedy=fault.remedy)
        return
    if known.train is not None and (others := sorted(set(known.train.labels) - set(LABELS))):
        problem = f"--structured admits only {' and '.join(LABELS)}, but {others[0]} is a right answer in this file"
        yield error("data.train_files", problem, remedy="Leave out --structured, or build the file with yes and no")
    yield note(
        "--structured",
        "every response follows the template, so the structure reward is always 1 and adds nothing to an advantage",
        remedy="Read accuracy and response length instead of structure in the log",
    )


def check_packages(known: Known) -> Iterator[Finding]:
    """The trainer's undeclared requirements are met."""
    if known.trainer is None:
        return
    needs = EASYR1_NEEDS if known.trains_with("easyr1") else VERL_NEEDS + VERL_GPU_NEEDS * known.gpu
    if known.trains_with("easyr1") and known.family is not None:
        needs += known.family.easyr1_needs
    for need in map(Requirement, needs):
        remedy = f"Run: pip install '{need}'"
        if (found := installed_version(need.name)) is None:
            yield error(need.name, "it is not installed", remedy=remedy)
        elif not need.specifier.contains(found, prereleases=True):
            yield error(need.name, f"version {found} is installed, but {need} is needed", remedy=remedy)


def check_gpus(known: Known) -> Iterator[Finding]:
    """There are as many GPUs as the run asks for, unless a cluster has them."""
    if joins_cluster() or known["trainer.nnodes"] > 1:
        return
    here, asked = gpu_count(), known["trainer.n_gpus_per_node"]
    if not known.gpu and known.trains_with("easyr1"):
        yield error("trainer", "EasyR1 needs a GPU, and this machine shows none", remedy="Without one, install verl")
    elif known.gpu and here < asked:
        yield error("trainer.n_gpus_per_node", f"{asked} is more than the {here} GPUs of this machine")
    elif not known.gpu and asked > 1:
        yield warning("trainer.n_gpus_per_node", f"this machine has no GPU: verl would run {asked} ranks on the CPU")


def check_nodes(known: Known) -> Iterator[Finding]:
    """Several nodes need a running cluster."""
    if (nodes := known["trainer.nnodes"]) > 1 and not joins_cluster():
        remedy = "Start Ray on every node, then `export RAY_ADDRESS=auto`, or use `ray job submit`"
        yield error("trainer.nnodes", f"{nodes} nodes, but RAY_ADDRESS is not set", remedy=remedy)


def check_cpus(known: Known) -> Iterator[Finding]:
    """Ray has as many CPUs as EasyR1 reserves; with fewer it waits forever, silently."""
    if not known.trains_with("easyr1") or joins_cluster():
        return
    here, rewards = os.cpu_count() or 1, 2 * known["worker.reward.num_cpus"]
    asked = 1 + rewards + known["trainer.n_gpus_per_node"]
    if asked > here:
        parts = f"1 for the runner, {rewards} for rewards, and 1 per GPU"
        problem = f"this machine has {here} CPUs, and EasyR1 waits forever for {asked}: {parts}"
        yield error("worker.reward.num_cpus", problem)


def check_memory(known: Known) -> Iterator[Finding]:
    """Estimate the memory of the run, and compare it with this machine's."""
    memory = training_memory(known)
    if memory is None:
        return
    if sum(memory.update.values()) >= GIB:
        yield note("memory", describe_memory(memory))
    if joins_cluster():
        return  # another machine may train; the start asks each node
    if not known.gpu:
        parts = sum(memory.update.values()) - memory.update["activations"]
        yield from _check_host_memory(parts * known.world_size, "of memory and no GPU", "Train on GPUs")
    elif (have := gpu_memory()) is not None:
        yield from _check_gpu_memory(known, memory, have)
        yield from _check_host_memory(memory.host, "of memory", "Use fewer GPUs per host, or offload less")


def describe_memory(memory: Memory) -> str:
    """Return an estimate in words."""
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in memory.update.items() if size)
    update = gigabytes(sum(memory.update.values()))
    stays = f"{gigabytes(memory.stays)} stay while the rollout engine runs"
    return f"an update takes about {update} per GPU ({parts}); {stays}; {gigabytes(memory.host)} per host (estimated)"


def _check_gpu_memory(known: Known, memory: Memory, have: int) -> Iterator[Finding]:
    """An update fits on a GPU, and so does the rollout engine with what stays there."""
    key, share = "worker.rollout.gpu_memory_utilization", known["worker.rollout.gpu_memory_utilization"]
    need, free = sum(memory.update.values()), 1 - memory.stays / have
    if need > have:
        problem = f"an update needs about {gigabytes(need)} (estimated), but the GPUs have {gigabytes(have)}"
        remedy = "See the profiles in examples/grpo: LoRA, bf16, smaller micro batches, or more GPUs"
        yield warning("worker.actor.model.model_path", problem, remedy=remedy)
    if share > free:
        problem = f"{share} is too much: the trained model leaves {max(free, 0):.2f} of {gigabytes(have)} (estimated)"
        remedy = "Lower it, or set worker.actor.offload.offload_params and offload_optimizer"
        yield warning(key, problem, remedy=remedy)
    if share * have < memory.engine:
        engine = f"the rollout engine's weights, about {gigabytes(memory.engine)}"
        remedy = "Raise it, or worker.rollout.tensor_parallel_size"
        yield warning(key, f"{share} of {gigabytes(have)} cannot hold {engine}", remedy=remedy)


def _check_host_memory(need: float, what: str, remedy: str) -> Iterator[Finding]:
    import psutil

    if need > (have := psutil.virtual_memory().total):
        needed = f"weights, gradients and moments need about {gigabytes(need)} (estimated)"
        problem = f"{needed}, but this machine has {gigabytes(have)} {what}"
        yield warning("worker.actor.model.model_path", problem, remedy=f"{remedy}, or train a smaller model")


MACHINE_CHECKS: Final[tuple[Check, ...]] = (
    check_trainer,
    check_translation,
    check_structured,
    check_packages,
    check_nodes,
    check_gpus,
    check_cpus,
    check_memory,
)
