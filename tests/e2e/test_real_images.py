"""Real photographs through every room: built, trained on for two steps, predicted, scored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lad_reasoner.training.metrics import read_metrics
from lad_rehearsal.demo.tiny import BASE

pytestmark = [pytest.mark.slow, pytest.mark.frameworks, pytest.mark.e2e]


def run(module: str, *words: object, cwd: Path) -> str:
    command = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def real(shared_data) -> Path:
    return shared_data / "real"


@pytest.fixture(scope="module")
def pairs(real, repository, tmp_path_factory) -> Path:
    """A GRPO set and a LOCO set of the real sample images."""
    folder = tmp_path_factory.mktemp("real")
    for name, tree in (("full", "mvtec_ad"), ("reduced", "mvtec_ad_reduced")):
        roots = ("--mvtec", real / tree, "--visa", real / "visa")
        options = ("--recipe", "all", "--max-pixels", 50_176, "--out", folder / f"{name}.parquet")
        run("lad_reasoner.commands.lad", "build", "grpo", *roots, *options, cwd=repository)
    run(
        "lad_reasoner.commands.lad",
        *("build", "loco", "--root", real / "mvtec_loco_ad", "--subset", "all", "--out", folder / "loco.parquet"),
        cwd=repository,
    )
    return folder


def test_two_grpo_steps_on_real_images(pairs, repository, tmp_path) -> None:
    out = run(
        "lad_reasoner.commands.easyr1",
        "config=examples/demo/grpo.yaml",
        f"data.train_files={pairs / 'full.parquet'}",
        f"data.val_files={pairs / 'loco.parquet'}",
        "data.rollout_batch_size=4",
        "data.min_pixels=3136",
        "data.max_pixels=7056",  # what the tiny model was made for
        "worker.actor.global_batch_size=4",
        "worker.actor.micro_batch_size_per_device_for_update=8",
        "worker.actor.micro_batch_size_per_device_for_experience=8",
        f"worker.actor.model.model_path={BASE}",
        "worker.rollout.n=2",
        "trainer.max_steps=2",
        f"trainer.save_checkpoint_path={tmp_path / 'run'}",
        cwd=repository,
    )
    steps = [row for row in read_metrics(tmp_path / "run") if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2], out
    assert all(0 <= row["reward"] <= 1 and row["rollout_probs_diff_max"] < 1e-3 for row in steps)


def test_predict_and_score_on_real_images(pairs, repository, tmp_path) -> None:
    answers = tmp_path / "answers.jsonl"
    options = ("--model", BASE, "--out", answers, "--max-new-tokens", 48)
    run("lad_reasoner.commands.lad", "predict", "--data", pairs / "loco.parquet", *options, cwd=repository)
    score = json.loads(
        run("lad_reasoner.commands.lad", "score", answers, "--protocol", "all", "--json", cwd=repository)
    )
    (scored,) = score["runs"]
    assert scored["pooled"]["pairs"] == len(answers.read_text(encoding="utf-8").splitlines()) > 0
