"""Compare GRPO settings on the demo's tiny model: where the KL penalty is, and unanimous against mixed pairs.

Run: python examples/demo/ablations.py kl --pairs grpo.parquet --out ablations
     python examples/demo/ablations.py filter --pairs grpo.parquet --mixed grpo-mixed.parquet --out ablations
Each run is `easyr1 config=examples/demo/grpo.yaml` with the words below; runs of one seed see the same prompts in the
same order. If interrupted, run the same command again: finished runs are skipped. Writes `<experiment>.md`, a table of
every seed, and `<experiment>.svg` and `.png`, the means over the seeds per step.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from lad_reasoner.report.plotting import save_figure
from lad_reasoner.report.training_curves import Run, draw_panels
from lad_reasoner.training.metrics import Row, read_metrics
from lad_rehearsal.demo.tiny import BASE

CONFIG = Path(__file__).with_name("grpo.yaml")

#: The four places of the KL penalty. A coefficient of 0 in the loss has no effect, and the KL is measured.
KL: Mapping[str, Mapping[str, object]] = {
    "KL in the reward, grpo": {"algorithm.use_kl_loss": False, "algorithm.kl_penalty": "kl"},
    "KL in the reward, rloo": {
        "algorithm.use_kl_loss": False,
        "algorithm.kl_penalty": "kl",
        "algorithm.adv_estimator": "rloo",
    },
    "KL in the loss, grpo": {},
    "KL off, grpo": {"algorithm.kl_coef": 0},
}

PANELS = {
    "reward": "mean reward",
    "accuracy": "accuracy reward",
    "unanimous": "share of unanimous groups",
    "kl": "KL to the base (nats per token)",
}


def main() -> None:
    """Run one experiment, then write its table and its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=("kl", "filter"))
    parser.add_argument("--pairs", type=Path, required=True, help="training file of `lad build grpo`")
    parser.add_argument("--mixed", type=Path, help="the same file after `lad filter` (experiment filter)")
    parser.add_argument("--model", type=Path, default=BASE, help="starting model, by default the demo's base")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, the table and the figure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=32, help="prompts per step")
    parser.add_argument("--temperature", type=float, default=0.3, help="of the rollouts")
    parser.add_argument("--kl-coef", type=float, default=1e-3, help="wherever the KL penalty is; the profiles' value")
    options = parser.parse_args()
    if options.experiment == "filter" and options.mixed is None:
        parser.error("filter needs --mixed")
    if options.experiment == "kl":
        settings = KL
    else:
        files = {"all pairs": options.pairs, "mixed pairs only": options.mixed}
        settings = {name: {"data.train_files": path.resolve()} for name, path in files.items()}
    runs = {
        name: [read_rows(train(options, name, words, seed)) for seed in options.seeds]
        for name, words in settings.items()
    }
    (options.out / f"{options.experiment}.md").write_text(table(runs, options.seeds), encoding="utf-8")
    means = [Run(name, options.out, mean_rows(rows)) for name, rows in runs.items()]
    files = save_figure(draw_panels(means, PANELS, columns=2), options.out, options.experiment)
    print(table(runs, options.seeds), *files, sep="\n")


def train(options: argparse.Namespace, name: str, words: Mapping[str, object], seed: int) -> Path:
    """Train one run and return its folder; a finished run is skipped."""
    folder: Path = options.out / "runs" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if folder.is_dir() and len(read_rows(folder)) >= options.steps:
        return folder
    common = {
        "data.train_files": options.pairs.resolve(),
        "data.val_files": options.pairs.resolve(),  # the trainer requires the key; validation is off
        "data.seed": seed,
        "data.rollout_batch_size": options.prompts,
        "worker.actor.global_batch_size": options.prompts,
        "worker.actor.model.model_path": options.model.resolve(),
        "worker.rollout.seed": seed,
        "worker.rollout.temperature": options.temperature,
        "algorithm.kl_coef": options.kl_coef,
        "trainer.max_steps": options.steps,
        "trainer.save_freq": -1,
        "trainer.save_checkpoint_path": folder.resolve(),
    }
    pairs = [f"{key}={value}" for key, value in (common | words).items()]
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", f"config={CONFIG}", *pairs]
    subprocess.run(command, check=True)
    return folder


def read_rows(folder: Path) -> list[Row]:
    """Return the training steps of a run, with the share of unanimous groups."""
    rows = [row for row in read_metrics(folder) if "reward" in row]
    return [row | {"unanimous": row["unanimous_right"] + row["unanimous_wrong"]} for row in rows]


def mean_rows(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """Return the mean over the seeds for each step."""
    return [{name: fmean(row[name] for row in rows) for name in ("step", *PANELS)} for rows in zip(*runs, strict=True)]


def table(runs: Mapping[str, Sequence[Sequence[Row]]], seeds: Sequence[int]) -> str:
    """Return a table in Markdown: means of the first and the last five steps of each run."""
    lines = [f"| setting | seed | {' | '.join(PANELS.values())} |", "|---" * (2 + len(PANELS)) + "|"]
    for name, rows_of_seed in runs.items():
        for seed, rows in zip(seeds, rows_of_seed, strict=True):
            cells = (f"{_mean(rows[:5], key):.3f} to {_mean(rows[-5:], key):.3f}" for key in PANELS)
            lines.append(f"| {name} | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(rows: Sequence[Row], name: str) -> float:
    return fmean(row[name] for row in rows)


if __name__ == "__main__":
    main()
