"""GRPO on the CPU by the real verl: killed in the middle, then resumed; nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lad_reasoner.training.metrics import read_metrics
from lad_reasoner.training.run.checkpoints import find_last, step_of

from .conftest import write_pairs

pytestmark = [pytest.mark.slow, pytest.mark.frameworks]

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 6


def words(folder: Path) -> list[str]:
    return [
        f"config={REPOSITORY}/examples/demo/grpo.yaml",
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/val.parquet",
        "data.rollout_batch_size=4",
        "worker.actor.global_batch_size=4",
        "worker.actor.micro_batch_size_per_device_for_update=8",
        "worker.actor.micro_batch_size_per_device_for_experience=8",
        "worker.actor.model.model_path=plugin/lad_rehearsal/demo/base",
        "worker.actor.optim.lr=1e-3",
        "worker.rollout.n=2",
        "worker.reward.reward_function_kwargs={overlong_weight: 0.5, overlong_limit: 48, naming_weight: 0.2}",
        f"trainer.max_steps={STEPS}",
        "trainer.save_freq=2",
        "trainer.save_limit=-1",
        "trainer.val_freq=3",
        f"trainer.save_checkpoint_path={folder}/run",
    ]


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", *words(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)


def processes_of(run: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(run) in " ".join(process.cmdline()):
                found.append(process.name())
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end, "too slow"
        time.sleep(0.5)


def test_a_killed_run_resumes_from_its_last_checkpoint_and_an_interrupted_one_leaves_nothing(tmp_path):
    write_pairs(tmp_path / "train.parquet", 16)
    write_pairs(tmp_path / "val.parquet", 6, dataset="mvtec_loco")
    run = tmp_path / "run"

    killed = start(tmp_path)
    wait_until(lambda: find_last(run, "verl"), killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    last = find_last(run, "verl")
    assert last is not None
    reached = step_of(last)
    assert reached < STEPS

    interrupted = start(tmp_path)
    wait_until((run / "attempts" / "002" / "trainer.log").exists, interrupted)
    time.sleep(5)
    interrupted.send_signal(signal.SIGTERM)  # SIGINT is ignored where tests run in the background
    said = interrupted.communicate(timeout=60)[1]
    assert interrupted.returncode == 130
    assert f"resuming after step {reached}" in said
    assert processes_of(run) == []

    resumed = start(tmp_path)
    said = resumed.communicate(timeout=900)[1]
    assert resumed.returncode == 0, said
    rows = read_metrics(run)
    assert [row["step"] for row in rows if "reward" in row] == list(range(1, STEPS + 1))
    for row in rows:
        assert {"structure", "accuracy", "response_length", "kl", "overlong"} <= set(row)
    assert any("naming" in row for row in rows)
    assert {row["step"] for row in rows if "val/accuracy" in row} == {3, 6}
    assert max(row["rollout_probs_diff_max"] for row in rows) < 1e-3
    kl = {row["step"]: row["kl"] for row in rows if "reward" in row}
    assert kl[1] < 1e-6 < kl[reached + 1], "it started anew"
    assert (run / "latest_checkpointed_iteration.txt").read_text() == str(STEPS)
    assert (run / f"global_step_{STEPS}" / "actor" / "huggingface" / "model.safetensors").is_file()
    assert processes_of(run) == []


def test_a_failing_trainer_gives_its_exit_code_one_line_and_the_log(tmp_path):
    write_pairs(tmp_path / "train.parquet", 16)
    (tmp_path / "val.parquet").write_bytes(b"PAR1 but no table")
    broken = [*words(tmp_path), "--no-check"]
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", *broken]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=os.environ, check=False)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: verl: exit code 1:")
    assert "trainer.log. Nothing was saved yet" in last
    assert "Traceback" not in run.stderr
    assert processes_of(tmp_path) == []
