"""GRPO on a CPU with vLLM's server as the rollout, against the project's own rollout: the same config, data and verl.

Run: python tests/bench/bench_rollout.py [--steps 4]
Both train the demo's base on the same synthetic pairs, 32 prompts x 8 samples, float32, one after the other. Prints
seconds per step (median, without the first), seconds from the command to the first step, peak memory, and the ratios.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace

from bench_grpo import config_words, draw_pairs, read_steps, watch

from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.easyr1.keys import read_snapshot
from lad_reasoner.training.installed import require_trainer
from lad_reasoner.training.run.plan import build_command, next_attempt
from lad_reasoner.training.run.start import run_attempt
from lad_reasoner.training.runtimes import RolloutEngine
from lad_rehearsal.demo.memory import PeakMemory
from lad_rehearsal.verl_cpu.runtime import cpu_environment


@dataclass(frozen=True)
class Measured:
    """Figures of a run; names are printed as they are."""

    seconds_per_step: float
    seconds_to_first_step: float
    peak_memory_gb: float


def measure(engine: RolloutEngine, pairs: Path, folder: Path, steps: int) -> Measured:
    """Train, sampling with vLLM or with the project's own rollout ("transformers")."""
    keys, trainer = read_snapshot(), require_trainer()
    config = load_config(config_words(pairs, folder / engine, steps), keys)
    attempt = next_attempt(config.run_dir)
    command = build_command(config, trainer, attempt, gpu=False, engine=engine)
    began, ended, seen = time.time(), threading.Event(), dict[str, float]()
    alive = SimpleNamespace(poll=lambda: 0 if ended.is_set() else None)
    watcher = threading.Thread(target=lambda: seen.update(watch(attempt / "trainer.log", alive, began)))
    watcher.start()
    try:
        with PeakMemory(os.getpid()) as memory:
            code = run_attempt(
                command,
                config,
                trainer,
                attempt,
                lambda ray: {**os.environ, **cpu_environment(ray, engine=engine)},
                total_steps=steps,
                notes=[],
            )
    finally:
        ended.set()
        watcher.join()
    if code:
        raise SystemExit(f"{engine}: exit code {code}: {(attempt / 'trainer.log').read_text()[-2000:]}")
    _, took = read_steps(attempt)
    return Measured(median(took[1:]), list(seen.values())[-1], memory.bytes / 1e9)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory(prefix="lad-bench-") as name:
        pairs = draw_pairs(Path(name))
        own, vllm = (measure(engine, pairs, Path(name), steps) for engine in ("transformers", "vllm"))
    print(f"{'':24}{'own':>8}{'vLLM':>8}{'ratio':>8}")
    for key, mine in vars(own).items():
        theirs = getattr(vllm, key)
        print(f"{key:24}{mine:8.2f}{theirs:8.2f}{theirs / mine:8.2f}")


if __name__ == "__main__":
    main()
