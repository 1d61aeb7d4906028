"""GRPO by TRL on the demo's model, data and reward: what `bench_grpo.py` measures ours against.

Run: PYTHONPATH=<folder with trl> python tests/bench/trl_grpo.py PAIRS MODEL STEPS
Prints a JSON line at the start and at the end of each step: event, step, seconds since the epoch, response length.
"""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from datasets import Dataset
from lad_reasoner.task.rewards import rlad_reward
from lad_reasoner.task.task import IMAGE_MARKER, prompt_text

#: As `bench_grpo.py` has them.
PROMPTS, SAMPLES, RESPONSE = 32, 8, 48


def to_example(row: dict[str, Any]) -> dict[str, Any]:
    content: list[dict[str, str]] = []
    for index, part in enumerate(prompt_text(row["problem"]).split(IMAGE_MARKER)):
        content += [{"type": "image"}] * (index > 0) + [{"type": "text", "text": part}] * bool(part)
    images = [Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in row["images"]]
    return {"prompt": [{"role": "user", "content": content}], "images": images, "answer": row["answer"]}


def reward(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    texts = [completion[0]["content"] for completion in completions]
    return [rlad_reward(text, gold)["overall"] for text, gold in zip(texts, answer, strict=True)]


class Clock(TrainerCallback):
    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._say("begin", state.global_step + 1)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._say("end", state.global_step)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        if "completions/mean_length" in logs:
            self._say("log", state.global_step, length=logs["completions/mean_length"], reward=logs["reward"])

    @staticmethod
    def _say(event: str, step: int, **values: float) -> None:
        print(json.dumps({"event": event, "step": step, "time": time.time(), **values}), flush=True)


def main() -> None:
    pairs, model, steps = sys.argv[1:]
    rows = pq.read_table(pairs, columns=["problem", "images", "answer"]).slice(0, PROMPTS * 8).to_pylist()
    processor = AutoProcessor.from_pretrained(model)
    config = GRPOConfig(
        output_dir="trl",
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=RESPONSE,
        max_steps=int(steps),
        learning_rate=2e-4,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        beta=0.02,
        temperature=1.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    GRPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list([to_example(row) for row in rows]),
        processing_class=processor,
        callbacks=[Clock()],
    ).train()


if __name__ == "__main__":
    main()
