"""The ablations of the demo: what each run is started with, and the table and figure of its log."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = 6


@pytest.fixture
def ablations(repository):
    spec = importlib.util.spec_from_file_location("ablations", repository / "examples" / "demo" / "ablations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def started(monkeypatch):
    """Runs are recorded, and leave the log of a trainer; reward and KL rise by the seed with each step."""
    commands = []

    def run(command, *, check):
        words = dict(word.split("=", 1) for word in command[3:])
        commands.append(words)
        attempt = Path(words["trainer.save_checkpoint_path"]) / "attempts" / "001"
        attempt.mkdir(parents=True)
        seed, rewards, verl = int(words["data.seed"]), [], []
        for step in range(1, STEPS + 1):
            verl.append({"step": step, "data": {"critic/score/mean": 0.1 * step * seed, "actor/kl_loss": 0.01 * step}})
            sums = {"accuracy": 6.0, "unanimous_right": 1.0, "unanimous_wrong": 2.0}
            counts = {"accuracy": 8, "unanimous_right": 4, "unanimous_wrong": 4}
            rewards.append({"step": step, "split": "train", "sums": sums, "counts": counts})
        (attempt / "verl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in verl))
        (attempt / "rewards.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rewards))

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def run_main(module, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ablations.py", *map(str, words), "--steps", str(STEPS)])
    module.main()


def test_the_four_places_of_the_penalty(ablations, started, monkeypatch, tmp_path):
    run_main(ablations, monkeypatch, "kl", "--pairs", tmp_path / "grpo.parquet", "--out", tmp_path, "--seeds", 1, 2)
    assert [words["data.seed"] for words in started] == ["1", "2"] * 4
    places = [
        (words.get("algorithm.use_kl_loss"), words.get("algorithm.adv_estimator"), words["algorithm.kl_coef"])
        for words in started[::2]
    ]
    assert places == [
        ("False", None, "0.001"),
        ("False", "rloo", "0.001"),
        (None, None, "0.001"),  # the demo's config has it in the loss
        (None, None, "0"),
    ]
    assert len({words["trainer.save_checkpoint_path"] for words in started}) == 8


def test_table_and_figure_hold_what_was_logged(ablations, started, monkeypatch, tmp_path):
    words = ("kl", "--pairs", tmp_path / "grpo.parquet", "--out", tmp_path, "--seeds", 1, 2)
    run_main(ablations, monkeypatch, *words)
    table = (tmp_path / "kl.md").read_text().splitlines()
    assert len(table) == 2 + 8
    # Steps 1 to 5 of seed 2, then 2 to 6: rewards 0.2 a step; 3 of 4 groups unanimous.
    assert table[3] == (
        "| KL in the reward, grpo | 2 | 0.600 to 0.800 | 0.750 to 0.750 | 0.750 to 0.750 | 0.030 to 0.040 |"
    )
    assert (tmp_path / "kl.svg").stat().st_size > 5_000
    rows = ablations.mean_rows([ablations.read_rows(tmp_path / "runs" / f"KL-off-grpo-{seed}") for seed in (1, 2)])
    assert [row["reward"] for row in rows] == pytest.approx([0.15 * step for step in range(1, STEPS + 1)], abs=1e-12)
    before = len(started)
    run_main(ablations, monkeypatch, *words)
    assert len(started) == before  # finished runs are skipped


def test_filter_compares_two_files(ablations, started, monkeypatch, tmp_path):
    words = ("filter", "--pairs", tmp_path / "all.parquet", "--out", tmp_path, "--seeds", 1)
    with pytest.raises(SystemExit):
        run_main(ablations, monkeypatch, *words)
    run_main(ablations, monkeypatch, *words, "--mixed", tmp_path / "mixed.parquet")
    assert [Path(words["data.train_files"]).name for words in started] == ["all.parquet", "mixed.parquet"]
    assert {words["data.seed"] for words in started} == {"1"}
