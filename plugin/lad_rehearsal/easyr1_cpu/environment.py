"""What a launcher gives an EasyR1 run that has no GPU: the path with the stand-in for vLLM, and the environment.

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
from lad_rehearsal.easyr1_cpu.vllm_version import MARK, VERSION

__all__ = ["easyr1_environment", "write_path"]

#: Tickets to start a process, not cores: EasyR1's runner, its two reward actors and its workers each take some, and
#: it waits for ever where they are too few.
LOGICAL_CPUS: Final = 64

_METADATA: Final = f"""\
Metadata-Version: 2.1
Name: vllm
Version: {VERSION}
Summary: lad-reasoner's stand-in for vLLM, for rehearsals of EasyR1 without a GPU
Keywords: {MARK}
"""


def write_path(folder: Path) -> Path:
    """Make a folder for PYTHONPATH that holds the stand-in, its package metadata and this package; return it.

    This package is linked, so that the trainer's python may be another than this one, whose other packages it must
    not see.

    Args:
        folder: The run's own folder.
    """
    path = folder / "path"
    path.mkdir(exist_ok=True)
    (path / "vllm").symlink_to(Path(__file__).parent / "vllm", target_is_directory=True)
    for package in (lad_reasoner, lad_rehearsal):
        home = Path(str(package.__file__)).parent
        (path / home.name).symlink_to(home, target_is_directory=True)
    metadata = path / f"vllm-{VERSION}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(_METADATA, encoding="utf-8")
    return path


def easyr1_environment(folder: Path, *, checkout: Path | None, ranks: int = 1) -> dict[str, str]:
    """Return the environment variables of EasyR1's process, to be laid over ``os.environ``.

    Args:
        folder: The run's own folder for Ray, from `lad_reasoner.support.processes.run_folder`.
        checkout: EasyR1's checkout; None where it is installed.
        ranks: Trainer processes; EasyR1 calls them GPUs.
    """
    paths = [write_path(folder), *([checkout] if checkout else [])]
    return {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": LOGICAL_CPUS, "GPU": ranks}),
        # Ray hands these numbers out with its GPUs; to torch they are none.
        "CUDA_VISIBLE_DEVICES": ",".join(["-1"] * ranks),
        # EasyR1's runner forks to filter and to load data, and a fork of a process with OpenMP threads waits for ever.
        # The stand-in takes all cores in the worker, which does not fork.
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # A process a logical CPU would be started at once otherwise.
        "RAY_prestart_worker_first_driver": "0",
    }
