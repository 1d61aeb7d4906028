"""What is installed and what the machine has. Memory is estimated, so it only warns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from lad_reasoner.trainers.checks.known import Finding, Known, error, warning
from lad_reasoner.trainers.checks.model import gigabytes, training_bytes

__all__ = ["MACHINE_CHECKS"]

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
        yield error(
            "trainer",
            "neither EasyR1 nor verl installed",
            remedy="pip install 'lad-reasoner[cpu]', [vllm] or [easyr1]",
        )


def check_packages(known: Known) -> Iterator[Finding]:
    """The trainer's undeclared requirements are met."""
    if known.trainer is None:
        return
    needs = EASYR1_NEEDS if known.trainer.name == "easyr1" else VERL_NEEDS + VERL_GPU_NEEDS * known.gpu
    for need in map(Requirement, needs):
        try:
            found = version(need.name)
        except PackageNotFoundError:
            yield error(need.name, "it not installed", expected=str(need), remedy=f"pip install '{need}'")
            continue
        if not need.specifier.contains(found, prereleases=True):
            yield error(need.name, found, expected=str(need), remedy=f"pip install '{need}'")


def check_gpus(known: Known) -> Iterator[Finding]:
    """There are as many GPUs as the run asks for, unless a cluster has them."""
    if "RAY_ADDRESS" in os.environ or known["trainer.nnodes"] > 1:
        return
    here, asked = len(list(Path("/dev").glob("nvidia[0-9]*"))), known["trainer.n_gpus_per_node"]
    if known.gpu and here < asked:
        yield error("trainer.n_gpus_per_node", str(asked), expected=f"at most {here}, the GPUs of this machine")
    elif not known.gpu and asked > 1:
        yield warning(
            "trainer.n_gpus_per_node", f"{asked} and no GPU here", remedy=f"verl would run {asked} ranks on the CPU"
        )


def check_nodes(known: Known) -> Iterator[Finding]:
    """Several nodes need a running cluster."""
    if known["trainer.nnodes"] > 1 and "RAY_ADDRESS" not in os.environ:
        yield error(
            "trainer.nnodes",
            str(known["trainer.nnodes"]),
            expected="RAY_ADDRESS in the environment",
            remedy="start Ray on every node, then `export RAY_ADDRESS=auto`, or use `ray job submit`",
        )


def check_memory(known: Known) -> Iterator[Finding]:
    """Weights, gradients and moments fit; on a machine without a GPU they lie in its memory."""
    import psutil

    estimate = training_bytes(known)
    if estimate is None or known.gpu:
        return
    need, have = sum(estimate), psutil.virtual_memory().total
    if need > have:
        yield warning(
            "worker.actor.model.model_path",
            f"{gigabytes(have)} of memory and no GPU",
            expected=f"about {gigabytes(need)} for weights, gradients and moments (estimated)",
            remedy="train on GPUs, or a smaller model",
        )


MACHINE_CHECKS: Final[tuple[Callable[[Known], Iterator[Finding]], ...]] = (
    check_trainer,
    check_packages,
    check_nodes,
    check_gpus,
    check_memory,
)
