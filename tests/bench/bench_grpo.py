"""A GRPO step and the way to the first one: `easyr1` (verl on the CPU runtime) beside TRL's GRPOTrainer.

Run: python tests/bench/bench_grpo.py [--steps 6] [--trl FOLDER]
Both train the demo's base on the same drawn pairs with the same reward, 32 prompts x 8 samples, float32, KL 0.02, the
same threads, one after the other. Prints seconds a step (median, without the first), seconds from the command to the
first step, their ratios, and where our time goes.

TRL 1.8.0 does not fit beside LLaMA-Factory: it is installed, without dependencies, into a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lad_rehearsal.demo.tiny import BASE
from lad_rehearsal.verl_cpu.runtime import cpu_environment

REPOSITORY = Path(__file__).resolve().parents[2]
TRL = "trl==1.8.0"

#: Prompts a step. This and the temperature are laid over the demonstration's config, as `trl_grpo.py` has them.
PROMPTS = 32

#: verl's names for the parts of a step, and ours. What is left of the step is the rollout: `step` minus these.
PARTS = {
    "old_log_prob": "log-probabilities before the update",
    "ref": "log-probabilities of the reference",
    "update_actor": "update",
    "adv": "advantages",
    "update_weights": "weights to the rollout",
    "save_checkpoint": "checkpoint",
}

#: Lines of verl's log at which a stretch of the start-up ends.
MILESTONES = {
    r"ray init kwargs": "imports of the driver",
    r"Started a local Ray instance": "Ray",
    r"Using dataset class": "imports of the trainer's runner, its queue, the data's tokenizer",
    r"contains [\d.]+\w parameters": "data; imports of the trainer's worker",
    r"Training Progress": "models, weights to the rollout",
}


@dataclass
class Measured:
    """Seconds since the command.

    Attributes:
        begin: Start of the first step.
        steps: Length of each step.
        lengths: Mean response length of each step, in tokens.
        parts: Mean seconds of each part of a step.
        start: Seconds of each stretch of the start-up.
    """

    begin: float
    steps: list[float]
    lengths: list[float]
    parts: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)

    @property
    def step(self) -> float:
        """The median, without the first step."""
        return statistics.median(self.steps[1:])


def draw_pairs(folder: Path) -> Path:
    """Return a parquet of drawn pairs, as the demo has them."""
    trees, pairs = folder / "trees", folder / "pairs.parquet"
    lad = [sys.executable, "-m", "lad_reasoner.commands.lad"]
    roots = ["--mvtec", str(trees / "mvtec_ad"), "--visa", str(trees / "visa"), "--recipe", "all"]
    for command in (["synthetic", "--out", str(trees)], ["grpo", *roots, "--out", str(pairs)]):
        subprocess.run([*lad, "build", *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return pairs


def config_words(pairs: Path, run: Path, steps: int) -> list[str]:
    """Return the config of a measured run as words of the `easyr1` command."""
    words = {
        "config": REPOSITORY / "examples/demo/grpo.yaml",
        "data.train_files": pairs,
        "data.val_files": pairs,
        "data.rollout_batch_size": PROMPTS,
        "worker.actor.global_batch_size": PROMPTS,
        "worker.rollout.temperature": 1.0,
        "worker.actor.model.model_path": BASE,
        "trainer.max_steps": steps,
        "trainer.save_freq": -1,
        "trainer.save_checkpoint_path": run,
    }
    return [f"{key}={value}" for key, value in words.items()]


def read_steps(attempt: Path) -> tuple[list[dict[str, float]], list[float]]:
    """Return verl's metrics of each step of an attempt, and its seconds without saving."""
    rows = [json.loads(line)["data"] for line in (attempt / "verl.jsonl").read_text().splitlines()]
    return rows, [row["timing_s/step"] - row.get("timing_s/save_checkpoint", 0) for row in rows]


def measure_ours(pairs: Path, folder: Path, steps: int) -> Measured:
    """Train by the `easyr1` command."""
    run = folder / "run"
    attempt = run / "attempts" / "001"
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "lad_reasoner.commands.easyr1", *config_words(pairs, run, steps)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = dict(watch(attempt / "trainer.log", process, began))
    if process.wait():
        assert process.stderr is not None
        raise SystemExit(f"easyr1 failed: {process.stderr.read()[-2000:]}")
    rows, took = read_steps(attempt)
    lengths = [row["response_length/mean"] for row in rows]
    later = rows[1:]
    parts = {
        name: statistics.mean(row.get(f"timing_s/{part}", 0) for row in later)
        for part, name in PARTS.items()
        if part != "save_checkpoint"
    }
    parts["rollout: prompts, sampling, rewards, queue"] = statistics.mean(took[1:]) - sum(parts.values())
    names = list(MILESTONES.values())
    ends = [seen[name] for name in names]
    start = dict(zip(names, (b - a for a, b in zip([0.0, *ends], ends, strict=False)), strict=True))
    return Measured(ends[-1], took, lengths, parts, start)


def watch(log: Path, process: subprocess.Popen[str], began: float) -> Iterator[tuple[str, float]]:
    """Yield each milestone of the start-up as the log reaches it, with the seconds since the command."""
    waiting = dict(MILESTONES)
    while waiting and process.poll() is None:
        time.sleep(0.05)
        text = log.read_text(errors="replace") if log.is_file() else ""
        for pattern in [pattern for pattern in waiting if re.search(pattern, text)]:
            yield waiting.pop(pattern), time.time() - began


def measure_trl(pairs: Path, folder: Path, steps: int, trl: Path) -> Measured:
    """Train by TRL."""
    threads = {name: value for name, value in cpu_environment(folder).items() if name.startswith("OMP_")}
    path = os.pathsep.join([str(trl), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.time()
    output = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("trl_grpo.py")), str(pairs), str(BASE), str(steps)],
        env=os.environ | threads | {"PYTHONPATH": path},
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    events: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines() if line.startswith('{"event"')]
    begins, ends, logs = ([event for event in events if event["event"] == name] for name in ("begin", "end", "log"))
    took = [end["time"] - begin["time"] for begin, end in zip(begins, ends, strict=True)]
    return Measured(begins[0]["time"] - began, took, [log["length"] for log in logs])


def install_trl(folder: Path) -> Path:
    """Put TRL into a folder of its own, where it is not yet."""
    if not (folder / "trl").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), TRL]
        subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
    return folder


def report(ours: Measured, trl: Measured) -> None:
    rows = (
        ("seconds a GRPO step (32 x 8)", ours.step, trl.step),
        ("seconds from command to first step", ours.begin, trl.begin),
    )
    print(f"{'':38}{'easyr1':>9}{'TRL':>9}{'ratio':>8}")
    for name, mine, theirs in rows:
        print(f"{name:38}{mine:9.2f}{theirs:9.2f}{mine / theirs:8.2f}")
    lengths = statistics.mean(ours.lengths[1:]), statistics.mean(trl.lengths[1:])
    print(f"{'mean response length, tokens':38}{lengths[0]:9.1f}{lengths[1]:9.1f}")
    for title, parts in (("of a step", ours.parts), ("of the start", ours.start)):
        print(f"\nwhere our time goes, seconds {title}")
        for name, seconds in sorted(parts.items(), key=lambda part: -part[1] if parts is ours.parts else 0):
            print(f"  {seconds:6.2f}  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lad-reasoner" / "trl-1.8.0"
    parser.add_argument("--trl", type=Path, default=cache, help="folder of its own for TRL; filled if it is empty")
    options = parser.parse_args()
    trl = install_trl(options.trl)
    with tempfile.TemporaryDirectory(prefix="lad-bench-") as name:
        folder = Path(name)
        pairs = draw_pairs(folder)
        ours = measure_ours(pairs, folder, options.steps)
        report(ours, measure_trl(pairs, folder, options.steps, trl))


if __name__ == "__main__":
    main()
