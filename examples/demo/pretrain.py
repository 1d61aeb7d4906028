"""Pretrain the demo's base model on synthetic images, from random weights.

Needs:     pip install '.[cpu]'
Command:   python examples/demo/pretrain.py --out runs/base --device cuda
Hardware:  one GPU, or one CPU core (OMP_NUM_THREADS=1: a second thread gains nothing at this size)
Time:      see docs/demo-model.md

Three stages:

1. Naming the parts and the damage of one image.
2. Comparing two images that differ in many slots or in few, with the prompt and template of the task. (Comparison
   that is taught with another prompt does not transfer.) The result, OUT/solved, solves the task.
3. Making it a base: the answers overlook other colours and swapped parts, half of the "no" become "yes", and a third
   lack some tags of the template. The result sees more than it reports, and its verdict is uncalibrated.

Every few steps of the last stage, the model is measured on new pairs of new layouts. The first checkpoint whose
accuracy is near the requested one is OUT/base. docs/demo-model.md describes the measurements behind the choices.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

from lad_reasoner.pairs.prompt_length import VISION_TOKENS
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import IMAGE_MARKER
from lad_rehearsal.demo.tiny import IMAGE_SIZE, build_model, build_processor, save_tiny
from lad_rehearsal.synthetic import qa
from lad_rehearsal.synthetic.annotations import QuestionSample, draw_comparison, draw_damage, draw_pair, draw_parts
from lad_rehearsal.synthetic.render import render
from lad_rehearsal.synthetic.scenes import LOGICAL, draw_layout

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

BATCH = 128
WARM_UP = 200  # steps
WIDTH = 108  # tokens of the longest prompt and answer
TOLERANCE = 0.05  # of the base's accuracy


@dataclass(frozen=True)
class Stage:
    """What a stage trains on.

    Attributes:
        draws: The kinds of questions, with the share of each.
        learning_rate: Peak learning rate.
        steps: Number of steps.
        plain: Share of the pairs' answers that lack some of the template's tags.
        overlooked: Differences that the answers do not report.
        alarms: Share of the pairs' verdicts "no" that become "yes".
        every: Steps between two measurements.
        decays: Whether the learning rate warms up, and falls with a cosine to a tenth.
    """

    draws: dict[Callable[..., QuestionSample], float]
    learning_rate: float
    steps: int
    plain: float = 0.0
    overlooked: tuple[str, ...] = ()
    alarms: float = 0.0
    every: int = 10_000
    decays: bool = True


SINGLE = {draw_parts: 0.1, draw_damage: 0.05}
FEW, MOST = partial(draw_comparison, share=0.2), partial(draw_comparison, share=0.7)

STAGES = (
    Stage({draw_parts: 0.8, draw_damage: 0.2}, 1.5e-3, steps=1000),
    Stage({**SINGLE, draw_comparison: 0.3, FEW: 0.3, draw_pair: 0.25}, 1.5e-3, steps=2850, plain=0.1, every=356),
    Stage(
        {**SINGLE, MOST: 0.5, draw_pair: 0.35},
        3e-4,
        steps=160,
        plain=0.35,
        overlooked=("recoloured", "swapped"),
        alarms=0.6,
        every=10,
        decays=False,
    ),
)


@dataclass(frozen=True)
class Measurement:
    """Shares of correct and well-formed answers, greedy and sampled at temperature 1; accuracy by defect, greedy."""

    step: int
    accuracy: float
    well_formed: float
    sampled_accuracy: float
    sampled_well_formed: float
    defects: dict[str, float]


def draw_batch(stage: Stage, rng: np.random.Generator, count: int = BATCH) -> list[QuestionSample]:
    """Return the samples of a training step, each with its own layout."""
    draws = list(stage.draws)
    kinds = rng.choice(len(draws), size=count, p=list(stage.draws.values()))
    return [roughen(draws[kind](draw_layout(rng), rng), stage, rng) for kind in kinds]


def roughen(sample: QuestionSample, stage: Stage, rng: np.random.Generator) -> QuestionSample:
    """Write a pair's answer as the stage wants it."""
    if len(sample.scenes) == 1:
        return sample
    answer = qa.pair_answer(*sample.scenes, overlooked=stage.overlooked)
    if rng.random() < stage.plain:
        answer = str(rng.choice(qa.plain_answers(*sample.scenes, overlooked=stage.overlooked)))
    if rng.random() < stage.alarms:
        answer = re.sub(r" no( </answer>)?$", r" yes\1", answer)
    return replace(sample, answer=answer)


class Encoder:
    """Turns samples into token ids, labels, positions and images; each question's prompt is tokenised once."""

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

    def __call__(self, samples: Sequence[QuestionSample], *, answers: bool = True) -> dict[str, torch.Tensor]:
        """Return right-padded ids and types, and with answers the labels on them."""
        tokenizer = self.processor.tokenizer
        rows = []
        for sample in samples:
            ids, types = self.prompt(sample.question)
            answer = [*tokenizer(sample.answer).input_ids, tokenizer.eos_token_id] if answers else []
            rows.append((ids + answer, types + [0] * len(answer), [-100] * len(ids) + answer))
        width = WIDTH if answers else max(len(ids) for ids, *_ in rows)
        names = {"input_ids": tokenizer.pad_token_id, "mm_token_type_ids": 0, "labels": -100}
        inputs = {
            name: torch.tensor([(row[i] + [fill] * (width - len(row[i])))[:width] for row in rows])
            for i, (name, fill) in enumerate(names.items())
        }
        if not answers:
            del inputs["labels"]
        return inputs


class Batches(torch.utils.data.Dataset[tuple[dict[str, torch.Tensor], torch.Tensor]]):
    """The batches of a stage: a step's batch depends on the seed, the stage and the step alone."""

    def __init__(self, stage: Stage, encoder: Encoder, seed: Sequence[int], count: int = BATCH) -> None:
        self.stage, self.encoder, self.seed, self.count = stage, encoder, list(seed), count

    def __len__(self) -> int:
        return self.stage.steps

    def __getitem__(self, step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        rng = np.random.default_rng([*self.seed, step])
        samples = draw_batch(self.stage, rng, self.count)
        return self.encoder(samples), draw_images(samples, rng)


def draw_images(samples: Sequence[QuestionSample], rng: np.random.Generator) -> torch.Tensor:
    """Return the images of all samples: uint8 of shape (N, 84, 84, 3)."""
    return torch.from_numpy(render([scene for sample in samples for scene in sample.scenes], rng=rng).images)


class Vision:
    """Image input of one size, many images at once; transformers handles each image on its own."""

    def __init__(self, processor: Qwen2_5_VLProcessor) -> None:
        images = processor.image_processor
        self.scale = torch.tensor(images.image_std) * 255
        self.offset = torch.tensor(images.image_mean) / torch.tensor(images.image_std)

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the patches and the grids of uint8 images of shape (N, 84, 84, 3)."""
        side = IMAGE_SIZE // 28
        pixels = images.float() / self.scale.to(images.device) - self.offset.to(images.device)
        patches = pixels.view(-1, side, 2, 14, side, 2, 14, 3).permute(0, 1, 4, 2, 5, 7, 3, 6)
        patches = patches.unsqueeze(6).expand(*[-1] * 6, 2, -1, -1).reshape(-1, 3 * 2 * 14 * 14)
        return {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, 6, 6]]).repeat(len(images), 1)}

    @staticmethod
    def speed_up(model: Qwen2_5_VLForConditionalGeneration) -> None:
        """Replace the vision tower's loops over images; the results are the same."""
        tower = model.model.visual
        one = torch.tensor([[1, 6, 6]])
        angles, (index, _) = tower.rot_pos_emb(one), tower.get_window_index(one)

        def attend(self: Any, states: torch.Tensor, *, position_embeddings: Any, **_: Any) -> torch.Tensor:
            q, k, v = self.qkv(states).reshape(len(states), 3, self.num_heads, -1).unbind(1)
            q, k = qwen.apply_rotary_pos_emb_vision(q, k, *position_embeddings)
            q, k, v = (part.reshape(-1, 36, self.num_heads, part.shape[-1]).transpose(1, 2) for part in (q, k, v))
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return self.proj(mixed.transpose(1, 2).reshape(len(states), -1))

        tower.rot_pos_emb = lambda grid: angles.to(tower.device).repeat(len(grid), 1)
        tower.get_window_index = lambda grid: (
            (index + 9 * torch.arange(len(grid))[:, None]).flatten().to(tower.device),
            list(range(0, 36 * len(grid) + 1, 36)),
        )
        for block in tower.blocks:
            block.attn.forward = MethodType(attend, block.attn)


@torch.no_grad()
def measure(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, *, step: int, seed: int, count: int
) -> Measurement:
    """Answer ``count`` normal and logically anomalous pairs of new layouts, greedily and sampled."""
    model.eval()
    rng, device = np.random.default_rng(seed), model.device
    greedy, sampled = [], []
    samples = [draw_pair(draw_layout(rng), rng, defects=tuple(LOGICAL)) for _ in range(count)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, count, 250):
            batch = samples[start : start + 250]
            inputs = encoder(batch, answers=False) | Vision(encoder.processor)(draw_images(batch, rng))
            inputs = {name: value.to(device) for name, value in inputs.items()}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            for results, options in ((greedy, {"do_sample": False}), (sampled, {"do_sample": True, "top_k": 0})):
                tokens = model.generate(**inputs, max_new_tokens=32, **options)[:, inputs["input_ids"].shape[1] :]
                results.extend(map(parse, encoder.processor.batch_decode(tokens, skip_special_tokens=True)))
    model.train()
    right = np.array(
        [[a.answer == parse(s.answer).answer for a, s in zip(r, samples, strict=True)] for r in (greedy, sampled)]
    )
    formed = [float(np.mean([answer.well_formed for answer in results])) for results in (greedy, sampled)]
    names = np.array([sample.defect for sample in samples])
    defects = {str(name): round(float(right[0][names == name].mean()), 3) for name in np.unique(names)}
    return Measurement(step, right[0].mean(), formed[0], right[1].mean(), formed[1], defects)


def build_optimizer(model: Qwen2_5_VLForConditionalGeneration) -> torch.optim.Optimizer:
    """Return AdamW that decays matrices and leaves norms and biases alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


class Pretraining:
    """The model, its optimizer and its generator, taken through the stages."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.processor = build_processor(qa.vocabulary(), qa.PHRASES)
        self.model = build_model(self.processor.tokenizer, seed=options.seed)
        self.encoder, self.vision = Encoder(self.processor), Vision(self.processor)
        self.positions: dict[tuple[int, int], torch.Tensor] = {}
        self.vision.speed_up(self.model)
        self.model.to(options.device)
        self.done = 0
        self.began = time.monotonic()

    def train_step(self, inputs: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """Take one step and return its loss."""
        device = self.model.device
        inputs = {name: value.to(device, non_blocking=True) for name, value in inputs.items()}
        inputs |= self.vision(images.to(device, non_blocking=True))
        loss = self.model(**inputs, position_ids=self.position_ids(inputs)).loss
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def position_ids(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the positions, shape (3, N, width); they depend on the number of images alone."""
        ids, types = inputs["input_ids"], inputs["mm_token_type_ids"]
        pairs, width = (types.sum(1) > 9).long(), ids.shape[1]
        for images in pairs.unique().tolist():
            if (images, width) not in self.positions:
                row, grid = (
                    int((pairs == images).nonzero()[0]),
                    torch.tensor([[1, 6, 6]] * (images + 1), device=ids.device),
                )
                found, _ = self.model.model.get_rope_index(ids[row : row + 1], types[row : row + 1], grid)
                self.positions[images, width] = found
        either = [self.positions[key] for key in ((0, width), (1, width)) if key in self.positions]
        return torch.cat([either[0], either[-1]], dim=1)[:, pairs]

    def run_stage(self, number: int, stage: Stage) -> Iterator[Measurement]:
        """Train to the stage's end; yield what is measured on the way."""
        self.optimizer, losses = build_optimizer(self.model), []
        batches = Batches(stage, self.encoder, (self.options.seed, number))
        loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=self.options.workers)
        for step, (inputs, images) in enumerate(loader, start=1):
            self.done += 1
            share = 0.1 + 0.45 * (1 + np.cos(np.pi * step / stage.steps))
            for group in self.optimizer.param_groups:
                group["lr"] = stage.learning_rate * (min(share, step / WARM_UP) if stage.decays else 1)
            losses.append(self.train_step(inputs, images))
            if step % 100 == 0:
                seconds = time.monotonic() - self.began
                note(f"step {self.done}  loss {torch.stack(losses[-100:]).mean():.3f}  {seconds:.0f} s")
            if step % stage.every == 0:
                seed, count = self.options.seed + 1000, self.options.count
                now = measure(self.model, self.encoder, step=self.done, seed=seed, count=count)
                print(json.dumps(asdict(now)), flush=True)
                yield now

    def save(self, folder: Path) -> None:
        """Write the model as it is."""
        save_tiny(folder, model=self.model, processor=self.processor)


def pretrain(options: argparse.Namespace) -> int:
    """Go through the stages; write the solved model, and the first base whose accuracy is near the requested one."""
    run = Pretraining(options)
    naming, comparing, unsettling = STAGES
    list(run.run_stage(1, naming))
    list(run.run_stage(2, comparing))
    run.save(options.out / "solved")
    for now in run.run_stage(3, unsettling):
        if abs(now.accuracy - options.accuracy) <= TOLERANCE:
            run.save(options.out / "base")
            note(f"{options.out / 'base'}: {now.accuracy:.1%} of {options.count} pairs after {now.step} steps")
            return 0
    note(f"no checkpoint came within {TOLERANCE:.0%} of {options.accuracy:.0%}; try another --seed")
    return 1


def note(line: str) -> None:
    """Print a line for the person who waits."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line and pretrain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Folder for the two models.")
    parser.add_argument("--accuracy", type=float, default=0.5, help="Greedy accuracy requested of the base.")
    parser.add_argument("--count", type=int, default=500, help="Pairs per measurement.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument("--device", default="cpu", help="Device of the training, such as cuda.")
    parser.add_argument("--workers", type=int, default=0, help="Processes that render the images.")
    sys.exit(pretrain(parser.parse_args()))


if __name__ == "__main__":
    main()
