"""The commands of the demonstration: those of the real work, with a tiny model and synthetic images.

render data ─► SFT ─┬► GRPO ─► +SFT+GRPO        the paper's four variants: base, +SFT, +GRPO, +SFT+GRPO,
base ───────────────┴► GRPO ─► +GRPO            each predicts every pair of the synthetic MVTec LOCO set
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lad_reasoner
from lad_datasets.sources import mvtec_loco
from lad_reasoner.training.metrics import VERL_LOG
from lad_rehearsal.demo.progress import Progress, count_files, count_lines
from lad_rehearsal.demo.stages import Stage
from lad_rehearsal.demo.tiny import BASE

__all__ = ["SEED", "VARIANTS", "Chain", "iter_examples"]

#: The paper's variants (Table 1) in display order: id and name.
VARIANTS: Final = {"base": "base", "sft": "+SFT", "grpo": "+GRPO", "sft-grpo": "+SFT+GRPO"}

#: Random seed of the data, the trainers and the sampled answers. No choice of model, data or schedule used it.
SEED: Final = 12749

#: Answers sampled for each pair at temperature 1, in addition to the greedy one.
SAMPLES: Final = 2

#: Categories of the LOCO set.
_CATEGORIES: Final = len(mvtec_loco.CATEGORIES)

#: Of sft.yaml: steps, and steps per line of its log.
_SFT_STEPS: Final = 120
_SFT_LOGGED: Final = 10

_LAD: Final = (sys.executable, "-m", "lad_reasoner.commands.lad")
_EASYR1: Final = (sys.executable, "-m", "lad_reasoner.commands.easyr1")
_LLAMAFACTORY: Final = (sys.executable, "-m", "llamafactory.cli")


@dataclass(frozen=True, slots=True)
class Chain:
    """The stages and the result of each.

    Attributes:
        folder: Folder of the demonstration.
        examples: Folder of the example configs.
        seed: Random seed of the data, the trainers and the sampled answers.
        steps: GRPO steps.
        loco_test: Test images per category of the synthetic LOCO set.
        sft_rows: Questions and answers for SFT.
    """

    folder: Path
    examples: Path
    seed: int = SEED
    steps: int = 10
    loco_test: int = 200
    sft_rows: int = 1920

    @property
    def loco(self) -> Path:
        """The scored pairs, which no training and no choice has used."""
        return self.folder / "loco.parquet"

    def run_dir(self, variant: str) -> Path:
        """Return the folder of a GRPO run."""
        return self.folder / "runs" / variant

    def model(self, variant: str) -> Path:
        """Return the Hugging Face folder of a variant."""
        if variant == "base":
            return BASE
        if variant == "sft":
            return self.folder / "models" / "sft"
        return self.run_dir(variant) / f"global_step_{self.steps}" / "actor" / "huggingface"

    def predictions(self, variant: str, *, sampled: bool = False) -> Path:
        """Return the file of a variant's answers."""
        return self.folder / "predictions" / f"{variant}{'.sampled' if sampled else ''}.jsonl"

    @property
    def trees(self) -> Path:
        """The rendered datasets."""
        return self.folder / "synthetic"

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.folder / "report"

    @property
    def pairs(self) -> int:
        """Number of pairs of the LOCO set."""
        return _CATEGORIES * self.loco_test

    def stages(self) -> list[list[Stage]]:
        """Return every stage, in order; those of one group run at the same time.

        GRPO starts with a minute of imports, which need one core and little memory: time for a short stage.
        """
        grpo = [self._grpo("grpo", start="base"), self._grpo("sft-grpo", start="sft")]
        ask = {variant: self._predict(variant) for variant in VARIANTS}
        return [
            [self._render()],
            [self._build()],
            [self._sft(), grpo[0]],
            [ask["base"], grpo[1]],
            *([ask[variant]] for variant in ("sft", "grpo", "sft-grpo")),
            [self._report()],
        ]

    def _render(self) -> Stage:
        sizes = ("--loco-test", str(self.loco_test), "--sft", str(self.sft_rows))
        command = (*_LAD, "build", "synthetic", "--out", str(self.trees), "--seed", str(self.seed), *sizes)
        progress = Progress("questions", self.sft_rows, count_files(self.trees / "sft", "*_0.png"))
        output = self.trees / "annotations.jsonl"
        return Stage("draw", "render the images", [command], output, progress, 8, starts_without=self.trees)

    def _build(self) -> Stage:
        trees, seed = self.trees, ("--seed", str(self.seed), "--overwrite")
        roots = ("--mvtec", str(trees / "mvtec_ad"), "--visa", str(trees / "visa"), "--recipe", "all")
        sft, grpo = self.folder / "sft", self.folder / "grpo.parquet"
        commands = [
            (*_LAD, "build", "sft", "--annotations", str(trees / "annotations.jsonl"), "--out", str(sft), *seed),
            (*_LAD, "build", "grpo", *roots, "--out", str(grpo), *seed),
            (*_LAD, "build", "loco", "--root", str(trees / "mvtec_loco"), "--out", str(self.loco), *seed),
        ]
        written = (sft / "dataset_info.json", grpo, self.loco)
        progress = Progress("files", len(written), lambda: sum(path.exists() for path in written))
        return Stage("build", "build pairs and QA", commands, self.loco, progress, 3)

    def _sft(self) -> Stage:
        out = self.model("sft")
        words = {
            "model_name_or_path": BASE,
            "dataset_dir": self.folder / "sft",
            "output_dir": out,
            "seed": self.seed,
        }
        config = self.examples / "demo" / "sft.yaml"
        command = (*_LLAMAFACTORY, "train", str(config), *(f"{key}={value}" for key, value in words.items()))
        lines = count_lines(out / "trainer_log.jsonl")
        progress = Progress("steps", _SFT_STEPS, lambda: lines() * _SFT_LOGGED)
        # One thread: at this size a second one is slower.
        alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        weights = out / "model.safetensors"
        title = "SFT (LLaMA-Factory)"
        return Stage("sft", title, [command], weights, progress, 53, starts_without=out, environment=alone)

    def _grpo(self, variant: str, *, start: str) -> Stage:
        pairs = self.folder / "grpo.parquet"
        words = {
            "data.train_files": pairs,
            "data.val_files": pairs,  # the trainer requires the key; validation is off
            "data.seed": self.seed,
            "worker.actor.model.model_path": self.model(start),
            "trainer.experiment_name": variant,
            "trainer.max_steps": self.steps,
            "trainer.save_checkpoint_path": self.run_dir(variant),
        }
        config = self.examples / "demo" / "grpo.yaml"
        command = (*_EASYR1, f"config={config}", *(f"{key}={value}" for key, value in words.items()))
        progress = Progress("steps", self.steps, count_lines(self.run_dir(variant) / "attempts" / "*" / VERL_LOG))
        title = f"GRPO from {VARIANTS[start]} (verl)"
        return Stage(variant, title, [command], self.model(variant) / "model.safetensors", progress, 142)

    def _predict(self, variant: str) -> Stage:
        command = (*_LAD, "predict", "--data", str(self.loco), "--model", str(self.model(variant)))
        options = ("--seed", str(self.seed), "--batch-size", "256", "--max-new-tokens", "40")
        greedy, sampled = self.predictions(variant), self.predictions(variant, sampled=True)
        commands = [
            (*command, "--out", str(greedy), *options),
            (*command, "--out", str(sampled), *options, "--samples", str(SAMPLES), "--temperature", "1"),
        ]
        progress = Progress("answers", 2 * self.pairs, count_lines(greedy, sampled))
        alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        title = f"ask {VARIANTS[variant]}"
        return Stage(f"predict-{variant}", title, commands, sampled, progress, 14, environment=alone)

    def _report(self) -> Stage:
        words = ("--data", str(self.loco), "--masks", str(self.trees / "mvtec_loco"), "--out", str(self.report))
        title = ("--title", "Synthetic MVTec LOCO AD: the four variants of a tiny model")
        runs = (f"--training={VARIANTS[name]}={self.run_dir(name)}" for name in ("grpo", "sft-grpo"))
        command = (*_LAD, "report", *(str(self.predictions(name)) for name in VARIANTS), *words, *title, *runs)
        page, images = self.report / "index.html", self.report / "images"
        progress = Progress("pictures", self.pairs, count_files(images, "*"))
        # An unfinished report has no page to recognise it by, and would not be replaced.
        return Stage("report", "write the report", [command], page, progress, 12, starts_without=self.report)


def iter_examples() -> Iterator[Path]:
    """Yield the possible folders of the example configs: in the installed package, or at the root of a checkout."""
    package = Path(str(lad_reasoner.__file__)).resolve().parent
    yield package / "examples"
    yield package.parents[1] / "examples"
