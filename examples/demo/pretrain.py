"""Pretrain the demo's base model on drawn pictures, from random weights: minutes on one CPU core.

Needs:     pip install '.[cpu]'
Command:   OMP_NUM_THREADS=1 python examples/demo/pretrain.py --out runs/base
Hardware:  one CPU core, 1.5 GB of memory (a second thread gains nothing at this size)
Time:      25 minutes on a 2.5 GHz core shared with other work; an estimated 7 on a free one

Three stages:

1. naming the parts of one picture;
2. comparing two pictures of which half the slots differ, under the very prompt and template of the task (what is
   taught under another prompt does not carry over), and a tenth of the task itself, until it is mostly solved;
3. comparing pictures of which most slots differ, so that the model comes to expect differences everywhere. This makes
   it a base: it can see, but it is not calibrated for the task, and a third of the answers it was shown last leave out
   some of the template's tags.

Every few steps the model is measured on fresh pairs of fresh layouts. The first checkpoint of the last stage that is
near the asked accuracy is the base, OUT/base. docs/demo-model.md tells what came of it and why it was done so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lad_reasoner.task.response import parse
from lad_reasoner.task.task import IMAGE_MARKER
from lad_rehearsal.demo.tiny import IMAGE_SIZE, build_model, build_processor, save_tiny
from lad_rehearsal.synthetic import qa
from lad_rehearsal.synthetic.annotations import QuestionSample, draw_comparison, draw_damage, draw_pair, draw_parts
from lad_rehearsal.synthetic.render import render
from lad_rehearsal.synthetic.scenes import LOGICAL, draw_layout

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

BATCH = 32
WARM_UP = 100  # steps
TOLERANCE = 0.07  # about three standard errors of the default measurement


@dataclass(frozen=True)
class Stage:
    """What is drawn, with its share.

    Attributes:
        plain: Share of the pairs' answers that leave out some of the template's tags.
        steps: How many at most.
        measure_from: First step that is measured, then every so many.
    """

    draws: dict[Callable[..., QuestionSample], float]
    learning_rate: float
    plain: float
    steps: int
    measure_from: int
    every: int


STAGES = (
    Stage({draw_parts: 0.75, draw_damage: 0.25}, 1.3e-3, plain=0.0, steps=136, measure_from=1000, every=1000),
    Stage(
        {draw_parts: 0.1, draw_damage: 0.05, draw_comparison: 0.75, draw_pair: 0.1},
        learning_rate=1.3e-3,
        plain=0.2,
        steps=800,
        measure_from=300,
        every=20,
    ),
    Stage(
        {draw_parts: 0.1, draw_damage: 0.05, partial(draw_comparison, share=0.7): 0.85},
        learning_rate=3e-4,
        plain=0.35,
        steps=40,
        measure_from=5,
        every=5,
    ),
)

VISION_TOKENS = "<|vision_start|><|image_pad|><|vision_end|>"


@dataclass(frozen=True)
class Measurement:
    """Shares of right and well-formed answers, greedy and sampled at temperature 1; ``normal`` on good queries."""

    step: int
    accuracy: float
    well_formed: float
    sampled_accuracy: float
    sampled_well_formed: float
    normal: float


def draw_batch(stage: Stage, rng: np.random.Generator) -> list[QuestionSample]:
    """Draw the samples of a training step, each about a layout of its own."""
    draws = list(stage.draws)
    kinds = rng.choice(len(draws), size=BATCH, p=list(stage.draws.values()))
    return [roughen(draws[kind](draw_layout(rng), rng), stage.plain, rng) for kind in kinds]


def roughen(sample: QuestionSample, share: float, rng: np.random.Generator) -> QuestionSample:
    """Leave some of the template's tags out of a share of the pairs' answers."""
    if len(sample.scenes) == 1 or rng.random() >= share:
        return sample
    return replace(sample, answer=str(rng.choice(qa.plain_answers(*sample.scenes))))


class Encoder:
    """Turns samples into the model's inputs, right-padded; a prompt is tokenised once for each question."""

    def __init__(self, processor: Qwen2_5_VLProcessor) -> None:
        self.processor = processor
        self.prompts: dict[str, tuple[list[int], list[int]]] = {}

    def prompt(self, question: str) -> tuple[list[int], list[int]]:
        """Return ids and modality types of the chat turn, exactly as every trainer writes it."""
        if question not in self.prompts:
            turn = [{"role": "user", "content": question}]
            text = self.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            blank = torch.zeros(question.count(IMAGE_MARKER), 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
            row = self.processor(text=[text.replace(IMAGE_MARKER, VISION_TOKENS)], images=list(blank))
            self.prompts[question] = row["input_ids"][0], row["mm_token_type_ids"][0]
        return self.prompts[question]

    def __call__(
        self, samples: Sequence[QuestionSample], rng: np.random.Generator, *, answers: bool = True
    ) -> dict[str, Any]:
        """Draw the pictures and return the inputs, with labels on the answers, or without the answers."""
        tokenizer = self.processor.tokenizer
        rows = []
        for sample in samples:
            ids, types = self.prompt(sample.question)
            answer = [*tokenizer(sample.answer).input_ids, tokenizer.eos_token_id] if answers else []
            rows.append((ids + answer, [1] * len(ids + answer), types + [0] * len(answer), [-100] * len(ids) + answer))
        width = max(len(ids) for ids, *_ in rows)
        names = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "mm_token_type_ids": 0, "labels": -100}
        inputs = {
            name: torch.tensor([row[i] + [fill] * (width - len(row[i])) for row in rows])
            for i, (name, fill) in enumerate(names.items())
        }
        if not answers:
            del inputs["labels"]
        images = render([scene for sample in samples for scene in sample.scenes], rng=rng).images
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        return inputs | dict(self.processor.image_processor(images=pixels, return_tensors="pt"))


@torch.no_grad()
def measure(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, *, step: int, seed: int, count: int
) -> Measurement:
    """Answer ``count`` normal and logically anomalous pairs of fresh layouts, greedily and sampled."""
    model.eval()
    rng = np.random.default_rng(seed)
    greedy, sampled, normal = [], [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(0, count, 250):
            samples = [draw_pair(draw_layout(rng), rng, defects=tuple(LOGICAL)) for _ in range(250)]
            inputs = encoder(samples, rng, answers=False)
            gold = [parse(sample.answer).answer for sample in samples]
            for results, options in ((greedy, {"do_sample": False}), (sampled, {"do_sample": True, "top_k": 0})):
                tokens = model.generate(**inputs, max_new_tokens=24, **options)[:, inputs["input_ids"].shape[1] :]
                texts = encoder.processor.batch_decode(tokens, skip_special_tokens=True)
                results += [
                    (parse(text).answer == label, parse(text).well_formed)
                    for text, label in zip(texts, gold, strict=True)
                ]
            normal += [right for (right, _), label in zip(greedy[-250:], gold, strict=True) if label == "no"]
    model.train()
    accuracy, well_formed = np.mean(greedy, axis=0)
    return Measurement(step, accuracy, well_formed, *np.mean(sampled, axis=0), np.mean(normal))


def build_optimizer(model: Qwen2_5_VLForConditionalGeneration) -> torch.optim.Optimizer:
    """Return AdamW that decays matrices and leaves norms and biases alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


class Pretraining:
    """The model, its optimizer and its generator, taken through the stages."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.processor = build_processor(qa.vocabulary())
        self.model = build_model(self.processor.tokenizer, seed=options.seed)
        self.encoder = Encoder(self.processor)
        self.done = 0
        self.start_afresh(1)
        self.began = time.monotonic()

    def start_afresh(self, stream: int) -> None:
        """Take a new optimizer, and a generator that owes nothing to what was drawn before."""
        self.optimizer = build_optimizer(self.model)
        self.rng = np.random.default_rng([self.options.seed, stream])

    def train_step(self, stage: Stage) -> float:
        """Take one step and return its loss."""
        self.done += 1
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate * min(1.0, self.done / WARM_UP)
        loss = self.model(**self.encoder(draw_batch(stage, self.rng), self.rng)).loss
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def run_stage(self, stage: Stage, *, until: float = 1.0) -> Iterator[Measurement]:
        """Train to the stage's end or to an accuracy; yield what is measured on the way."""
        losses = []
        for step in range(1, stage.steps + 1):
            losses.append(self.train_step(stage))
            if step % 25 == 0:
                seconds = time.monotonic() - self.began
                note(f"step {self.done}  loss {np.mean(losses[-25:]):.3f}  {seconds:.0f} s")
            if step >= stage.measure_from and step % stage.every == 0:
                seed, count = self.options.seed + 1000, self.options.count
                now = measure(self.model, self.encoder, step=self.done, seed=seed, count=count)
                print(json.dumps(asdict(now)), flush=True)
                yield now
                if now.accuracy >= until:
                    return

    def save(self, folder: Path) -> None:
        """Write the model as it is."""
        save_tiny(folder, model=self.model, processor=self.processor)


def pretrain(options: argparse.Namespace) -> int:
    """Go through the stages; write the first model of the last one that is near enough to the asked accuracy."""
    run = Pretraining(options)
    naming, comparing, unsettling = STAGES
    list(run.run_stage(naming))
    list(run.run_stage(comparing, until=options.solved))
    run.save(options.out / "solved")
    run.start_afresh(2)
    for now in run.run_stage(unsettling):
        if abs(now.accuracy - options.accuracy) <= TOLERANCE:
            run.save(options.out / "base")
            note(f"{options.out / 'base'}: {now.accuracy:.1%} of {options.count} pairs after {now.step} steps")
            return 0
    note(f"no checkpoint came within {TOLERANCE:.0%} of {options.accuracy:.0%}: try another --seed")
    return 1


def note(line: str) -> None:
    """Say something to the person who waits."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line and pretrain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--accuracy", type=float, default=0.60, help="greedy accuracy asked of the base")
    parser.add_argument("--solved", type=float, default=0.80, help="greedy accuracy at which the second stage ends")
    parser.add_argument("--count", type=int, default=500, help="pairs a measurement, a multiple of 250")
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(pretrain(parser.parse_args()))


if __name__ == "__main__":
    main()
