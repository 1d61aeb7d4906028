"""A run on several nodes is refused before it starts, with the reason: no cluster, or a node that cannot take part."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lad_reasoner.commands.easyr1 import build_app
from lad_reasoner.support.errors import LadError, UsageError
from lad_reasoner.training.easyr1.config import EasyR1Config, load_config
from lad_reasoner.training.easyr1.keys import read_snapshot
from lad_reasoner.training.installed import Trainer
from lad_reasoner.training.run import cluster as clusters
from lad_reasoner.training.run import plan, start
from lad_reasoner.training.run.cluster import Cluster, Look, Node, cluster_address, faults_of, files_of
from lad_reasoner.training.run.cluster_probe import look

KEYS = read_snapshot()
VERL, EASYR1 = Trainer("verl", "0.9.1", Path()), Trainer("easyr1", "0.3.3.dev0", Path())
VERSIONS = {"python": "3.11.9", "verl": "0.9.1", "lad_reasoner": "1.0 (sources 12ab)"}
FILES = {"/data/train.parquet": "aa", "/data/rlad.jinja": "bb"}
HERE = Look(versions=VERSIONS, files=FILES, shares_run_folder=True, nvidia=True)


def node(name: str = "b (10.0.0.2, 12345678)", **seen: Any) -> Node:
    good = {"versions": VERSIONS, "files": FILES, "shares_run_folder": True, "nvidia": True}
    sizes = {"gpus": 8, "free_gpus": 8, "cpus": 64}
    return Node(**{"name": name, **good, **sizes, **seen})


def said(config: EasyR1Config, *nodes: Node, trainer: Trainer = VERL) -> list[str]:
    return [str(fault) for fault in faults_of(Cluster(here=HERE, nodes=list(nodes)), config, trainer)]


@pytest.fixture
def two_by_eight(good_words: list[str]) -> EasyR1Config:
    return load_config([*good_words, "trainer.nnodes=2", "trainer.n_gpus_per_node=8"], KEYS)


def test_two_good_nodes_are_taken(two_by_eight):
    assert said(two_by_eight, node("a"), node("b")) == []


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (
            {"versions": VERSIONS | {"verl": "0.9.0"}},
            "node b: verl is 0.9.0 here, but 0.9.1 on the launcher. Install the same verl",
        ),
        ({"versions": {"python": "3.11.9", "verl": "0.9.1"}}, "node b: lad_reasoner is missing here, but 1.0"),
        (
            {"versions": VERSIONS | {"lad_reasoner": "1.0 (sources 99ff)"}},
            "node b: lad_reasoner is 1.0 (sources 99ff) here, but 1.0 (sources 12ab) on the launcher. Install",
        ),
        ({"files": FILES | {"/data/rlad.jinja": "cc"}}, "node b: /data/rlad.jinja differs from the launcher's"),
        ({"files": {"/data/train.parquet": "aa"}}, "node b: /data/rlad.jinja is missing"),
        (
            {"files": FILES | {"/data/train.parquet": "unreadable: Permission denied"}},
            "node b: /data/train.parquet is unreadable: Permission denied. Put it into a",
        ),
        (
            {"shares_run_folder": False},
            "/run is not shared with the launcher, or not writable. Name a folder in trainer.",
        ),
        ({"fault": "no answer in 120 s"}, "node b: no answer (no answer in 120 s). See Ray's logs"),
        (
            {"gpus": 4},
            "cluster: the run needs 8 GPUs on each of 2 nodes, but the cluster has 8 on a, 4 on b. Correct",
        ),
        (
            {"free_gpus": 7},
            "cluster: the run needs 8 GPUs that are free on each of 2 nodes, but the cluster has 8 on a, 7 on b",
        ),
        (
            {"cpus": 23},
            "cluster: the run needs 24 logical CPUs on each of 2 nodes, but the cluster has 64 on a, 23 on b",
        ),
    ],
)
def test_a_node_that_cannot_take_part_is_named_with_the_reason(two_by_eight, seen, says):
    faults = said(two_by_eight, node("a"), node("b", **seen))
    assert len(faults) == 1
    assert says in faults[0]


def test_a_node_too_few_is_said_once_and_a_large_node_stands_for_two(two_by_eight):
    (fault,) = said(two_by_eight, node("a"))
    assert fault.startswith("cluster: the run needs 8 GPUs on each of 2 nodes, but the cluster has 8 on a")
    assert said(two_by_eight, node("a", gpus=16, free_gpus=16)) == []
    assert said(two_by_eight, node("a", gpus=12, free_gpus=12), node("b", gpus=4, free_gpus=4)) != []


def test_easyr1_reserves_fewer_cpus(two_by_eight):
    nodes = (node("a", cpus=8), node("b", cpus=8))
    assert said(two_by_eight, *nodes, trainer=EASYR1) == []
    assert "logical CPUs" in said(two_by_eight, *nodes)[0]


def test_without_gpus_the_remedy_is_to_pretend_them(two_by_eight):
    bare = {"nvidia": False, "gpus": 0, "free_gpus": 0}
    (fault,) = said(two_by_eight, node("a", **bare), node("b", **bare))
    assert "`ray start --num-gpus N` on each node" in fault
    assert not Cluster(here=HERE, nodes=[node("a", **bare)]).has_gpu


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, None), ("", None), ("local", None), ("auto", "auto"), ("10.0.0.1:6379", "10.0.0.1:6379")],
)
def test_the_address_of_the_cluster(monkeypatch, value, found):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if value is not None:
        monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() == found


@pytest.mark.parametrize("address", ["http://10.0.0.1:8265", "ray://10.0.0.1:10001"])
def test_an_address_that_is_not_a_head_nodes_is_told_apart(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(
        UsageError,
        match=r"RAY_ADDRESS: \S+ is not the address of the head node\. Set it to auto or HOST:PORT .*`ray job submit",
    ):
        cluster_address()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def easyr1(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | variables
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.frameworks
def test_where_nobody_answers_it_is_said_at_once(good_words, closed_port, tmp_path):
    pytest.importorskip("verl")
    words = [*good_words, f"trainer.save_checkpoint_path={tmp_path}/run"]
    run = easyr1(*words, RAY_ADDRESS=f"127.0.0.1:{closed_port}")
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"error: no Ray cluster answers at RAY_ADDRESS=127.0.0.1:{closed_port} (Connection refused)"
    )
    assert "unset RAY_ADDRESS" in last
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.glob("run/attempts/*"))


@pytest.mark.frameworks
@pytest.mark.parametrize(("address", "flags"), [("local", []), (None, ["--no-check"])])
def test_several_nodes_without_a_cluster_are_refused(good_words, address, flags, tmp_path):
    pytest.importorskip("verl")
    words = [*good_words, f"trainer.save_checkpoint_path={tmp_path}/run", "trainer.nnodes=2", *flags]
    run = easyr1(*words, **({"RAY_ADDRESS": address} if address else {}))
    assert run.returncode == 2
    assert "error: trainer.nnodes: 2 nodes, but RAY_ADDRESS is not set" in run.stderr
    assert "RAY_ADDRESS" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.glob("run/attempts/*"))


def test_all_faults_are_said_and_nothing_starts(monkeypatch, capsys, two_by_eight):
    bad = node("b", versions=VERSIONS | {"verl": "0.9.0"}, shares_run_folder=False)
    monkeypatch.setattr(logging.getLogger("lad_reasoner"), "handlers", [logging.NullHandler()])
    build_app()
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(start, "probe", lambda *_, **__: Cluster(here=HERE, nodes=[node("a"), bad]))
    with pytest.raises(LadError, match=r"node b: verl is 0\.9\.0"):
        start.start_training(two_by_eight, VERL, total_steps=None)
    assert "error: node b: " in capsys.readouterr().err
    assert not (two_by_eight.run_dir / "attempts").exists()


def test_a_probe_that_dies_or_is_silent_is_said_with_its_last_words(monkeypatch, two_by_eight):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    run = subprocess.run

    def instead(code: str) -> Any:
        return lambda _command, **options: run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(clusters.subprocess, "run", instead("raise SystemExit('ConnectionError: no such cluster')"))
    with pytest.raises(
        LadError, match=r"no Ray cluster answers at RAY_ADDRESS=auto \(ConnectionError: no such cluster"
    ):
        clusters.probe(two_by_eight)
    monkeypatch.setattr(clusters, "PATIENCE", 0.2)
    monkeypatch.setattr(clusters.subprocess, "run", instead("import time; time.sleep(60)"))
    with pytest.raises(LadError, match=r"no answer in 0\.2 s"):
        clusters.probe(two_by_eight)
    assert not list(two_by_eight.run_dir.glob(".nodes-*"))


def test_the_files_of_a_run_are_what_each_node_needs(good_words, workshop):
    config = load_config([*good_words, f"data.train_files={workshop}/train.parquet@train"], KEYS)
    files = [Path(file) for file in files_of(config)]
    assert {workshop / "train.parquet", workshop / "val.parquet", workshop / "model"} < set(files)
    assert {file.name for file in files} >= {"rlad.jinja", "reward.py"}
    named = load_config([*good_words, "worker.actor.model.model_path=Qwen/Qwen2.5-VL-3B-Instruct"], KEYS)
    assert not any("Qwen" in file for file in files_of(named))  # a hub name


def test_a_machine_says_what_it_has(tmp_path):
    for name, content in (("a.jinja", "one"), ("model/config.json", "{}"), ("request.json", "{}")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    paths = [str(tmp_path / name) for name in ("a.jinja", "model", "none")]
    first = look(paths, str(tmp_path / "request.json"))
    assert Look.model_validate(json.loads(json.dumps(first))).shares_run_folder
    assert first["files"][paths[2]] == "missing"
    assert "sources" in first["versions"]["lad_reasoner"]
    for changed, name in ((0, "a.jinja"), (1, "model/config.json")):
        (tmp_path / name).write_text("two")
        second = look(paths, str(tmp_path / "request.json"))
        assert second["files"][paths[changed]] != first["files"][paths[changed]]
    assert not look(paths, str(tmp_path / "elsewhere" / "request.json"))["shares_run_folder"]


def test_what_the_processes_need_travels_to_nodes_that_others_started(good_words, tmp_path):
    config = load_config([*good_words, "trainer.nnodes=2"], KEYS)
    words = plan.build_command(config, VERL, tmp_path, gpu=False, cluster=True).words
    assert '++ray_kwargs.ray_init.runtime_env.env_vars.VERL_PLATFORM="cpu"' in words
    assert "trainer.nnodes=2" in words
    # Ray refuses resources where it joins a cluster.
    assert not [word for word in words if "num_gpus" in word or "num_cpus" in word or "object_store" in word]
    assert plan.build_command(config, VERL, tmp_path, gpu=True, cluster=True).on_cpu is False
    environment = plan.trainer_environment(plan.Command(words, on_cpu=True), None)
    assert environment["VERL_PLATFORM"] == "cpu"
    assert environment.get("RAY_TMPDIR") == os.environ.get("RAY_TMPDIR")
