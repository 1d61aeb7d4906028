"""What a launcher is given: overrides, environment, a folder for Ray, and the end of every process of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from lad_reasoner.support.processes import end_run, run_folder, run_processes
from lad_rehearsal.verl_cpu.runtime import cpu_environment, cpu_overrides

#: Unix domain sockets have paths of at most this many bytes; Ray's own part of them takes about 65.
SOCKET_PATH = 107
RAYS_PART = 65


def test_the_folder_is_short_and_goes() -> None:
    with run_folder() as folder:
        assert folder.is_dir()
        assert len(str(folder)) + RAYS_PART < SOCKET_PATH
        (folder / "ray").mkdir()
    assert not folder.exists()


def test_overrides_know_the_ranks() -> None:
    overrides = cpu_overrides(ranks=2)
    assert overrides["trainer.n_gpus_per_node"] == 2
    assert overrides["++ray_kwargs.ray_init.num_gpus"] == 2


def test_the_router_file_is_there() -> None:
    path = Path(str(cpu_overrides()["actor_rollout_ref.rollout.router_config_path"]))
    assert "router_class: lad_rehearsal.verl_cpu.router.NoRouter" in path.read_text(encoding="utf-8")


def test_environment(tmp_path: Path) -> None:
    environment = cpu_environment(tmp_path, threads=3)
    assert environment["RAY_TMPDIR"] == str(tmp_path)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert cpu_environment(tmp_path)["OMP_NUM_THREADS"] == str(os.cpu_count())


def test_every_process_of_a_run_ends_and_no_other(tmp_path: Path) -> None:
    environment = os.environ | cpu_environment(tmp_path)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    parent = "import os, time; os.fork() or os.setsid(); print(flush=True); time.sleep(60)"
    mine = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, start_new_session=True)
        for code in (stubborn, parent)
    ]
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    other = subprocess.Popen(sleep, env=os.environ | cpu_environment(tmp_path / "other"))
    try:
        for process in mine:
            assert process.stdout is not None
            process.stdout.readline()  # it is ready
        assert len(run_processes(tmp_path)) == 3
        assert end_run(tmp_path, grace=0.5) == 3
        assert run_processes(tmp_path) == []
        assert all(process.poll() is not None for process in mine)
        assert other.poll() is None
    finally:
        for process in (*mine, other):
            process.kill()
            process.wait()


def test_nothing_to_end(tmp_path: Path) -> None:
    start = time.monotonic()
    assert end_run(tmp_path, grace=30) == 0
    assert time.monotonic() - start < 5
