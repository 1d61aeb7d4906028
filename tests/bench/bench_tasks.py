"""Answers by class and boxes, trained on the CPU: does GRPO raise their rewards?

Run: python tests/bench/bench_tasks.py [classes] [boxes] [--out FOLDER] [--warm-steps 200] [--steps 24]

The demo's base answers yes or no only. It is first shown the new form on synthetic pairs (plain cross-entropy, stopped
early), then trained by `easyr1` with the demo's config. Prints the rewards of the first and the last epoch, which are
those of the same pairs, and the scores on held-out layouts before and after.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from lad_reasoner.pairs.masks import mask_boxes
from lad_reasoner.pairs.prompt_length import VISION_TOKENS
from lad_reasoner.task.classes import right_answer
from lad_reasoner.task.gold import CLASSES, Gold
from lad_reasoner.task.task import IMAGE_MARKER, problem_text, prompt_text, read_prompt_template
from lad_reasoner.training.metrics import read_metrics
from lad_rehearsal.demo.tiny import BASE, IMAGE_SIZE, save_tiny
from lad_rehearsal.synthetic import qa
from lad_rehearsal.synthetic.annotations import QuestionSample
from lad_rehearsal.synthetic.render import render
from lad_rehearsal.synthetic.scenes import DEFECT_KINDS, LOGICAL, STRUCTURAL, Scene, break_scene, compare, draw_layout

REPOSITORY: Final = Path(__file__).resolve().parents[2]
LAD: Final = (sys.executable, "-m", "lad_reasoner.commands.lad")
EASYR1: Final = (sys.executable, "-m", "lad_reasoner.commands.easyr1")

#: Pairs to train on, and pairs per step: three steps see every pair once, so the first three compare with the last.
ROWS, PROMPTS, EPOCH = 96, 32, 3

#: Parts of the reward whose rise is shown, by task.
PARTS: Final = {"classes": ("reward", "accuracy", "credit"), "boxes": ("reward", "accuracy", "box")}


def draw_sample(task: str, rng: np.random.Generator) -> QuestionSample:
    """Draw a pair with the answer that its task asks for; half of the queries are normal."""
    reference = query = Scene(draw_layout(rng))
    defect = "good" if rng.random() < 0.5 else str(rng.choice([*LOGICAL, *STRUCTURAL]))
    if defect != "good":
        query = break_scene(reference, defect, rng)
    states = compare(reference, query)
    label = qa.label_of(states)
    answer = qa.pair_answer(reference, query)
    if task == "classes":
        gold = Gold(label, "", DEFECT_KINDS.get(defect, "good"), defect, answers=CLASSES)
        answer = answer.replace(f"<answer> {label} ", f"<answer> {right_answer(gold)} ")
    else:
        marked = np.array([state != "ok" for state in states]).reshape(3, 3)
        pixels = [[round(side * IMAGE_SIZE) for side in box] for box in mask_boxes(marked)]
        boxes = "".join(f"<box>{box}</box> " for box in pixels)
        answer = answer.replace("</think>", f"{boxes}</think>")
    question = prompt_text(problem_text(), read_prompt_template(task))
    return QuestionSample("pair", question, (reference, query), answer, defect)


def encode(processor: Any, samples: Sequence[QuestionSample], rng: np.random.Generator) -> Any:
    """Return the model's inputs of prompts, images and answers, with the loss on the answers alone."""
    scenes = [scene for sample in samples for scene in sample.scenes]
    images = list(torch.from_numpy(render(scenes, rng=rng, size=IMAGE_SIZE).images).permute(0, 3, 1, 2))
    prompts, whole = [], []
    for sample in samples:
        turn = [{"role": "user", "content": sample.question}]
        text = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        prompts.append(text.replace(IMAGE_MARKER, VISION_TOKENS))
        whole.append(prompts[-1] + sample.answer + processor.tokenizer.eos_token)
    inputs = processor(text=whole, images=images, padding=True, padding_side="right", return_tensors="pt")
    lengths = processor(text=prompts, images=images, padding=True, return_tensors="pt")["attention_mask"].sum(1)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[torch.arange(labels.shape[1]) < lengths[:, None]] = -100
    return inputs | {"labels": labels}


def warm_up(task: str, out: Path, *, steps: int, seed: int) -> None:
    """Show the base the new form of answers, and save it."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    processor = AutoProcessor.from_pretrained(BASE)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(BASE, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.98))
    rng = np.random.default_rng([seed, 7])
    model.train()
    for step in range(1, steps + 1):
        loss = model(**encode(processor, [draw_sample(task, rng) for _ in range(32)], rng)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            print(f"warm-up {step}: loss {loss.item():.3f}", flush=True)
    save_tiny(out, model=model, processor=processor)


def run(*words: object) -> str:
    """Run a command and return what it prints.

    Raises:
        RuntimeError: It failed.
    """
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words[2:6]))}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def build(task: str, folder: Path, *, seed: int) -> tuple[Path, Path]:
    """Render the trees and return the training file and the held-out file."""
    trees, train, test = folder / "synthetic", folder / "grpo.parquet", folder / "loco.parquet"
    run(*LAD, "build", "synthetic", "--out", trees, "--seed", seed, "--sft", 1, "--loco-test", 40)
    forms = {
        root: ("--answers", "classes") if task == "classes" else ("--boxes", trees / root)
        for root in ("mvtec_ad", "mvtec_loco")
    }
    mvtec = ("--mvtec", trees / "mvtec_ad", "--recipe", "all", "--balance", "--limit", ROWS)
    run(*LAD, "build", "grpo", *mvtec, "--out", train, *forms["mvtec_ad"])
    loco = ("build", "loco", "--root", trees / "mvtec_loco", "--subset", "all", "--out", test)
    run(*LAD, *loco, *forms["mvtec_loco"])
    return train, test


def train(task: str, folder: Path, data: Path, *, steps: int, seed: int) -> Path:
    """Run GRPO with the demo's config and return the trained model."""
    words = {
        "data.train_files": data,
        "data.val_files": data,
        "data.seed": seed,
        "data.format_prompt": f"plugin/lad_reasoner/task/prompts/{task}.jinja",
        "data.max_prompt_length": 640,
        "data.max_response_length": 80,
        "data.rollout_batch_size": PROMPTS,
        "worker.actor.global_batch_size": PROMPTS,
        "worker.actor.micro_batch_size_per_device_for_update": 64,
        "worker.actor.micro_batch_size_per_device_for_experience": 64,
        "worker.actor.model.model_path": folder / "warm",
        "worker.rollout.temperature": 1.0,
        "trainer.max_steps": steps,
        "trainer.save_freq": steps,
        "trainer.save_checkpoint_path": folder / "grpo",
    }
    if task == "boxes":
        words["worker.reward.reward_function_kwargs.box_weight"] = 1.0
    run(*EASYR1, "config=examples/demo/grpo.yaml", *(f"{key}={value}" for key, value in words.items()))
    return folder / "grpo" / f"global_step_{steps}" / "actor" / "huggingface"


def score(task: str, folder: Path, data: Path, model: Path, name: str) -> str:
    """Return the figures of a model on the held-out file, in one line."""
    out = folder / f"{name}.jsonl"
    run(*LAD, "predict", "--data", data, "--model", model, "--out", out, "--batch-size", 64, "--max-new-tokens", 80)
    options = ("--protocol", "all", "--resamples", 500, "--json")
    masks = ("--masks", folder / "synthetic" / "mvtec_loco") if task == "boxes" else ()
    found = json.loads(run(*LAD, "score", out, "--data", data, *options, *masks))
    accuracy = found["runs"][0]["pooled"]["metrics"]["accuracy"]["value"]
    (item,) = found[task]
    figures = item["figures"] if task == "boxes" else {key: item[key] for key in ("accuracy", "macro_f1", "credit")}
    values = ", ".join(f"{key} {figure['value']:.3f}" for key, figure in figures.items())
    return f"{name}: yes/no accuracy {accuracy:.3f}; {values}"


def measure(task: str, folder: Path, options: argparse.Namespace) -> None:
    """Train one task, and print its rewards and its scores before and after."""
    print(f"{task}: {options.warm_steps} warm-up steps, {options.steps} GRPO steps", flush=True)
    if not (folder / "warm").is_dir():
        warm_up(task, folder / "warm", steps=options.warm_steps, seed=options.seed)
    data, held_out = build(task, folder, seed=options.seed)
    trained = train(task, folder, data, steps=options.steps, seed=options.seed)
    rows = read_metrics(folder / "grpo")
    for part in PARTS[task]:
        values = [row[part] for row in rows if part in row]
        first, last = statistics.mean(values[:EPOCH]), statistics.mean(values[-EPOCH:])
        print(f"{part}: {first:.3f} in the first epoch, {last:.3f} in the last", flush=True)
    for name, model in (("warm", folder / "warm"), ("grpo", trained)):
        print(score(task, folder, held_out, model, name), flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="*", default=list(PARTS), help=f"{' or '.join(PARTS)}; by default both")
    parser.add_argument("--out", type=Path, help="folder to keep; by default a temporary one")
    parser.add_argument("--warm-steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.task) - set(PARTS):
        parser.error(f"no task {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as temporary:
        for task in options.task:
            measure(task, (options.out or Path(temporary)).absolute() / task, options)


if __name__ == "__main__":
    main()
