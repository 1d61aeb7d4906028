"""GRPO by the real verl on a Ray cluster of two nodes: a worker is killed in the middle, then the run is resumed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from lad_reasoner.support.processes import end_run, run_processes
from lad_reasoner.training.metrics import read_metrics
from lad_reasoner.training.run.checkpoints import find_last, step_of

from .conftest import write_pairs

pytestmark = [pytest.mark.slow, pytest.mark.frameworks]

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 5

#: Two nodes, a raylet each, with one pretended GPU each; they end with their stdin.
NODES = """
import sys
from ray.cluster_utils import Cluster
node = dict(num_cpus=8, num_gpus=1, object_store_memory=150_000_000, include_dashboard=False)
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(**node)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass(frozen=True)
class TwoNodes:
    address: str
    folder: Path

    def processes(self, word: str) -> list[psutil.Process]:
        """The cluster's processes with this word in their command line."""
        found = []
        for process in run_processes(self.folder):
            try:
                if word in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    """A cluster of two nodes on this machine; every process of it is ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="lad-", dir="/tmp") as name:  # Ray's sockets need a short path
        folder = Path(name)
        environment = os.environ | {
            "RAY_TMPDIR": name,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_prestart_worker_first_driver": "0",
        }
        environment.pop("RAY_ADDRESS", None)
        nodes = subprocess.Popen(
            [sys.executable, "-c", NODES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        try:
            address = next((line.strip() for line in nodes.stdout if line[:1].isdigit()), "")
            assert address, "the cluster did not start"
            yield TwoNodes(address, folder)
        finally:
            nodes.stdin.close()
            try:
                nodes.wait(timeout=30)
            except subprocess.TimeoutExpired:
                nodes.kill()
            end_run(folder)
            nodes.wait()
            nodes.stdout.close()


def start(folder: Path, nodes: TwoNodes) -> subprocess.Popen[str]:
    words = [
        f"config={REPOSITORY}/examples/demo/grpo.yaml",
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/val.parquet",
        "data.rollout_batch_size=4",
        "worker.actor.global_batch_size=4",
        "worker.actor.micro_batch_size_per_device_for_update=4",
        "worker.actor.micro_batch_size_per_device_for_experience=4",
        "worker.actor.model.model_path=plugin/lad_rehearsal/demo/base",
        "worker.actor.optim.lr=1e-3",
        "worker.rollout.n=2",
        "trainer.nnodes=2",
        "trainer.n_gpus_per_node=1",
        f"trainer.max_steps={STEPS}",
        "trainer.save_freq=1",
        "trainer.save_limit=-1",
        f"trainer.save_checkpoint_path={folder}/run",
    ]
    environment = os.environ | {"RAY_ADDRESS": nodes.address}
    environment.pop("RAY_TMPDIR", None)
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end, "too slow"
        time.sleep(0.1)


def trained_steps(run: Path) -> set[float]:
    return {row["step"] for row in read_metrics(run) if "reward" in row}


def node_of(process: psutil.Process) -> int:
    """The process id of the raylet that started a worker."""
    return next(parent.pid for parent in process.parents() if "raylet" in parent.name())


def merged_is(whole: Path, checkpoint: Path, out: Path) -> bool:
    """Whether `easyr1 merge` joins the ranks' shards to what verl itself gathered."""
    from safetensors.torch import load_file

    words = ["merge", str(checkpoint), "--out", str(out), "--dtype", "float32"]
    merge = subprocess.run([sys.executable, "-m", "lad_reasoner.commands.easyr1", *words], check=False)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, whole))
    return merge.returncode == 0 and all(bool((ours[name] == theirs[name]).all()) for name in ours.keys() | theirs)


def test_a_killed_worker_ends_in_a_clear_error_and_the_same_command_resumes(tmp_path, two_nodes):
    write_pairs(tmp_path / "train.parquet", 16)
    write_pairs(tmp_path / "val.parquet", 6, dataset="mvtec_loco")
    run = tmp_path / "run"

    broken = start(tmp_path, two_nodes)
    wait_until(lambda: 1 in trained_steps(run), broken)
    ranks = two_nodes.processes("ray::WorkerDict")
    assert len(ranks) == 2
    assert len({node_of(rank) for rank in ranks}) == 2, "both ranks are on one node"
    ranks[1].kill()
    said = broken.communicate(timeout=600)[1]
    last = find_last(run, "verl")
    assert last is not None
    reached = step_of(last)
    assert 1 <= reached < STEPS
    assert broken.returncode == 1
    error = said.strip().splitlines()[-1]
    assert error.startswith("error: verl: exit code 1: WorkerDict, process ")
    assert f"process {ranks[1].pid} on node " in error
    assert error.endswith(f"trainer.log. The same command resumes after step {reached}.")
    assert "Traceback" not in said

    resumed = start(tmp_path, two_nodes)
    said = resumed.communicate(timeout=900)[1]
    assert resumed.returncode == 0, said
    assert f"resuming after step {reached} from" in said
    # A step is logged after it is saved: killed between the two, it would not be here.
    assert trained_steps(run) >= {1, *range(reached + 1, STEPS + 1)}
    rows = [row for row in read_metrics(run) if "reward" in row]
    assert max(row["rollout_probs_diff_max"] for row in rows) < 1e-3
    assert rows[-1]["kl"] > 1e-3, "the policy has not moved, so agreement shows nothing"
    actor = run / f"global_step_{STEPS}" / "actor"
    assert {file.name for file in actor.glob("model_world_size_2_rank_*.pt")} == {
        "model_world_size_2_rank_0.pt",
        "model_world_size_2_rank_1.pt",
    }
    assert merged_is(actor / "huggingface", run / f"global_step_{STEPS}", tmp_path / "merged")
    assert not list(run.glob("attempts/*/attempt.json"))
    assert len(two_nodes.processes("raylet")) >= 2, "the cluster outlives the run"
    assert not two_nodes.processes("ray::WorkerDict")
