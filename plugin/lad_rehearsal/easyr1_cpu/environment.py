"""Environment of an EasyR1 run without a GPU: a path with the replacement for vLLM, and environment variables.

    with run_folder() as folder:
        environment = os.environ | easyr1_environment(folder, checkout=Path("EasyR1"))
        subprocess.Popen([python, "-m", "verl.trainer.main", "config=..."], env=environment, start_new_session=True)
        ...
        end_run(folder)

Nothing here imports torch or ray.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import lad_reasoner
import lad_rehearsal

__all__ = ["MARK", "easyr1_environment", "write_path"]

#: The oldest version of vLLM that EasyR1 accepts; the suffix marks the replacement.
_VERSION: Final = "0.8.5+lad.reasoner"

#: Keyword in the package metadata of the replacement, by which the guard distinguishes it from vLLM's own.
MARK: Final = "lad-reasoner-stand-in"

#: Logical CPUs limit processes, not cores. EasyR1's runner, two reward actors and workers each reserve some; with too
#: few, EasyR1 waits forever.
LOGICAL_CPUS: Final = 64

_METADATA: Final = f"""\
Metadata-Version: 2.1
Name: vllm
Version: {_VERSION}
Summary: lad-reasoner's replacement for vLLM in rehearsals of EasyR1 without a GPU
Keywords: {MARK}
"""


def write_path(folder: Path) -> Path:
    """Make a folder for PYTHONPATH with the replacement for vLLM, its metadata and links to this package; return it.

    The trainer may use another interpreter, which must not see the other packages of this one.
    """
    path = folder / "path"
    path.mkdir(exist_ok=True)
    (path / "vllm").symlink_to(Path(__file__).parent / "vllm", target_is_directory=True)
    for package in (lad_reasoner, lad_rehearsal):
        home = Path(str(package.__file__)).parent
        (path / home.name).symlink_to(home, target_is_directory=True)
    metadata = path / f"vllm-{_VERSION}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(_METADATA, encoding="utf-8")
    return path


def easyr1_environment(folder: Path, *, checkout: Path | None, ranks: int = 1) -> dict[str, str]:
    """Return the environment variables of EasyR1's process, to be merged over ``os.environ``.

    Args:
        folder: The run's folder for Ray, from `lad_reasoner.support.processes.run_folder`.
        checkout: EasyR1's checkout; None if it is installed.
        ranks: Trainer processes; EasyR1 calls them GPUs.
    """
    paths = [write_path(folder), *([checkout] if checkout else [])]
    return {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": LOGICAL_CPUS, "GPU": ranks}),
        # Ray assigns these numbers as GPUs; torch sees no GPU.
        "CUDA_VISIBLE_DEVICES": ",".join(["-1"] * ranks),
        # EasyR1's runner forks to filter and load data, and a fork of a process with OpenMP threads can deadlock. The
        # replacement for vLLM uses all cores in the worker, which does not fork.
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray would otherwise start one process per logical CPU.
        "RAY_prestart_worker_first_driver": "0",
    }
