"""The main job on its embedded default: what `make demo` runs, held against what it promises."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.frameworks, pytest.mark.e2e, pytest.mark.timeout(2400)]


class Demo(NamedTuple):
    """The folder of the demonstration, its summary and what it printed."""

    folder: Path
    summary: dict[str, Any]
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Demo:
    """Run the demonstration once for all tests; LAD_DEMO_OUT names a folder with one to continue."""
    folder = Path(os.environ.get("LAD_DEMO_OUT") or tmp_path_factory.mktemp("demo") / "out")
    command = [sys.executable, "-m", "lad_reasoner.commands.lad", "demo", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Demo(folder, summary, done.stdout, done.stderr)


def test_grpo_raises_its_reward(demo) -> None:
    run = demo.summary["grpo"]["grpo"]
    reward, accuracy = (run["last_five"][name] - run["first_five"][name] for name in ("reward", "accuracy"))
    assert reward >= 0.05
    assert accuracy >= 0.08


def test_answers_after_grpo_are_right_more_often(demo) -> None:
    """Greedily, pair by pair; and sampled, which is what GRPO trains."""
    (gain,) = [
        item["accuracy"] for item in demo.summary["differences"] if (item["from"], item["to"]) == ("base", "grpo")
    ]
    assert gain["value"] >= 0.05
    assert gain["low"] > 0
    base, grpo = (demo.summary["variants"][name]["sampled"] for name in ("base", "grpo"))
    assert grpo["accuracy"]["value"] - base["accuracy"]["value"] >= 0.05
    assert grpo["accuracy"]["low"] > base["accuracy"]["high"]


def test_differences_of_greedy_answers_are_paired(demo) -> None:
    differences = demo.summary["differences"]
    assert [(item["from"], item["to"]) for item in differences] == [
        ("base", "grpo"),
        ("sft", "sft-grpo"),
        ("grpo", "sft-grpo"),
        ("base", "sft-grpo"),
    ]
    assert all(item["n"] >= 1000 for item in differences)
    assert differences[-1]["accuracy"]["low"] > 0.05


def test_sft_and_grpo_together_are_better_than_either(demo) -> None:
    """Greedily and sampled; of greedy answers, SFT alone may leave little to gain on another machine."""
    gain = {item["from"]: item["accuracy"] for item in demo.summary["differences"] if item["to"] == "sft-grpo"}
    assert gain["grpo"]["low"] > 0
    assert gain["sft"]["value"] > -0.01
    sampled = {name: variant["sampled"]["accuracy"] for name, variant in demo.summary["variants"].items()}
    assert sampled["sft-grpo"]["low"] > max(sampled["sft"]["high"], sampled["grpo"]["high"])


def test_sft_teaches_what_grpo_does_not_find_by_sampling(demo) -> None:
    """The reasoning names the violations that the base overlooks, and does not invent others."""
    reasoning = {name: variant["reasoning"] for name, variant in demo.summary["variants"].items()}
    named = {name: figures["violation_recall"] for name, figures in reasoning.items()}
    assert named["sft-grpo"]["low"] > named["grpo"]["high"]
    constant, shuffled = demo.summary["variants"]["sft-grpo"]["baselines"]
    assert reasoning["sft-grpo"]["violation_recall"]["low"] > max(constant["recall"], shuffled["recall"])


def test_sft_and_grpo_together_keep_the_template_and_are_mostly_right(demo) -> None:
    greedy = demo.summary["variants"]["sft-grpo"]["greedy"]
    assert greedy["template_rate"] >= 0.95
    assert greedy["accuracy"]["value"] >= 0.70


def test_the_summary_says_what_was_asked_and_what_it_cost(demo) -> None:
    folder, summary = demo.folder, demo.summary
    for variant in summary["variants"].values():
        for answers in (variant["greedy"], variant["sampled"]):
            assert answers["n"] >= 1000
            for metric in ("accuracy", "f1"):
                assert answers[metric]["low"] <= answers[metric]["value"] <= answers[metric]["high"]
        assert len(variant["categories"]) == 5
    for run in summary["grpo"].values():
        assert all({"reward", "structure", "accuracy", "response_length"} <= set(row) for row in run["steps"])
        assert [row["step"] for row in run["steps"]] == list(range(1, len(run["steps"]) + 1))
    assert all(stage["seconds"] > 0 and stage["peak_pss_bytes"] > 0 for stage in summary["stages"])
    assert summary["peak_pss_bytes"] <= 8 * 2**30
    assert summary["versions"]["verl"] == "0.9.1"
    assert (folder / "training.png").stat().st_size > 10_000


def test_trainer_and_rollout_agree(demo) -> None:
    for run in demo.summary["grpo"].values():
        assert max(row["rollout_probs_diff_max"] for row in run["steps"]) < 1e-3


def test_stderr_has_the_plan_and_the_stages_and_nothing_of_the_frameworks(demo) -> None:
    lines = demo.stderr.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("[1/10]"))
    assert "10 stages, about" in "".join(lines[:first])
    last = max(number for number, line in enumerate(lines) if line.startswith("[10/10]"))
    state = r"\d+ of \d+ \w+, .+ (left|finishing|longer than expected)"
    for line in lines[first : last + 1]:
        assert re.fullmatch(rf"\[\d+/10\] [^:]+: ({state}|.+ s, \d\.\d GiB|already done)", line)


def test_the_report_shows_the_variants_and_their_pairs(demo) -> None:
    page = (demo.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Synthetic MVTec LOCO AD" in page
    assert all(name in page for name in ("base", "sft", "grpo", "sft-grpo"))
    data = (demo.folder / "report" / "data.js").read_text(encoding="utf-8")
    assert "Top right: missing." in data
    assert len(list((demo.folder / "report" / "images").iterdir())) > 1000


def test_the_commands_to_try_next_work(demo) -> None:
    """`lad ask` runs as printed; `lad serve` has the same model, and is tested on its own."""
    (line,) = [line for line in demo.stdout.splitlines() if line.startswith("  lad ask ")]
    command = [sys.executable, "-m", "lad_reasoner.commands.lad", *shlex.split(line)[1:], "--json"]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answer["answer"] == "yes"
    (line,) = [line for line in demo.stdout.splitlines() if line.startswith("  lad serve ")]
    assert (Path(shlex.split(line)[-1]) / "model.safetensors").is_file()


def test_the_table_is_printed(demo) -> None:
    for name in ("base", "+SFT", "+GRPO", "+SFT+GRPO"):
        assert name in demo.stdout


def test_a_finished_demonstration_is_not_run_again(demo) -> None:
    command = [sys.executable, "-m", "lad_reasoner.commands.lad", "demo", "--out", str(demo.folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("already done") == len(demo.summary["stages"])
    assert json.loads(done.stdout) == demo.summary
