"""`lad predict` against the loop people write, one pair at a time through generate; the same answers, asserted.

Run: python tests/bench/bench_predict.py [--model DIR] [--pairs 100] [--rounds 3]
Prints the best seconds a pair of both, and the ratio of each round, in which the two take turns in this process; and
the same in processor seconds, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from lad_reasoner.inference.backends.load import load_backend
from lad_reasoner.inference.protocol import BackendOptions, Question
from lad_reasoner.pairs.schema import Image
from lad_reasoner.support.confusion import Floats
from lad_reasoner.task.task import LOCO_CATEGORIES, problem_text, prompt_text

NEW_TOKENS = 32


def clock() -> Floats:
    """Return ``(2,)``: seconds of the clock, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def draw_questions(count: int) -> list[Question]:
    """Return questions over five categories, each with one fixed reference, as one-shot evaluation has them."""
    rng = np.random.default_rng(0)
    references = [_draw(rng, f"{category}.png") for category in LOCO_CATEGORIES]
    prompt = prompt_text(problem_text())
    return [
        Question(f"pair-{index}", prompt, (references[index * len(references) // count], _draw(rng, f"{index}.png")))
        for index in range(count)
    ]


def _draw(rng: np.random.Generator, path: str) -> Image:
    from PIL import Image as Pillow

    squares = np.kron(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), np.ones((14, 14, 1), dtype=np.uint8))
    buffer = io.BytesIO()
    Pillow.fromarray(squares).save(buffer, "PNG")
    return Image(data=buffer.getvalue(), path=path, sha256=hashlib.sha256(buffer.getvalue()).hexdigest())


def loop(model: Path, questions: list[Question]) -> tuple[dict[str, str], Floats]:
    """Answer one pair at a time; loading is not timed."""
    import torch
    from PIL import Image as Pillow
    from transformers import AutoModelForImageTextToText, AutoProcessor

    network = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model)
    start, answers = clock(), {}
    for question in questions:
        content: list[dict[str, str]] = []
        for index, text in enumerate(question.prompt.split("<image>")):
            content += [{"type": "image"}] * (index > 0) + [{"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        chat = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        pictures = [Pillow.open(io.BytesIO(image.data or b"")) for image in question.images]
        inputs = processor(text=[chat], images=pictures, return_tensors="pt")
        with torch.inference_mode():
            output = network.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        tokens = output[0, inputs["input_ids"].shape[1] :]
        answers[question.pair_id] = processor.tokenizer.decode(tokens, skip_special_tokens=True)
    return answers, clock() - start


def ours(model: Path, questions: list[Question]) -> tuple[dict[str, str], Floats]:
    """Answer in batches; loading is not timed."""
    options = BackendOptions(model=str(model), device="cpu", batch_size=64, max_new_tokens=NEW_TOKENS)
    backend = load_backend("transformers", options)
    start = clock()
    answers = {answer.pair_id: answer.response for answer in backend.answer(questions)}
    return answers, clock() - start


def make_model(folder: Path) -> Path:
    """Write the shipped tiny model's architecture with random weights."""
    from lad_rehearsal.demo.tiny import build_model, build_processor, save_tiny

    processor = build_processor(["the part is missing <think> ok </think><answer> yes </answer> no"])
    save_tiny(folder, model=build_model(processor.tokenizer, seed=3), processor=processor)
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = words.model or make_model(Path(folder) / "tiny")
        questions = draw_questions(words.pairs)
        ours(model, questions[:8])  # warm up
        took = []
        for _ in range(words.rounds):
            fast, fast_seconds = ours(model, questions)
            slow, slow_seconds = loop(model, questions)
            assert fast == slow, "greedy responses differ"
            took.append((slow_seconds, fast_seconds))
    slow_best, fast_best = np.min(took, axis=0) / words.pairs
    ratios = np.array([slow / fast for slow, fast in took]).round(1)
    result = {
        "pairs": words.pairs,
        "loop_seconds_a_pair": round(float(slow_best[0]), 4),
        "lad_predict_seconds_a_pair": round(float(fast_best[0]), 4),
        "ratios": ratios[:, 0].tolist(),
        "loop_cpu_seconds_a_pair": round(float(slow_best[1]), 4),
        "lad_predict_cpu_seconds_a_pair": round(float(fast_best[1]), 4),
        "cpu_ratios": ratios[:, 1].tolist(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
