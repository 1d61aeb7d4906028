"""Pair parquets with drawn images, and predictions of models of a chosen skill."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.pair_files import image, make_pair, png_of_squares, write_pairs

from lad_reasoner.pairs.schema import Pair
from lad_reasoner.task.task import LOCO_CATEGORIES

WriteRuns = Callable[..., tuple[Path, list[Path]]]

SENTENCES = (
    "The reference shows every part in its slot, so I compare the query slot by slot.",
    "The upper row agrees in colour and count with the reference.",
    "In the lower left, a part of the reference has no counterpart in the query.",
    "The long screw appears twice, while the reference has one long and one short screw.",
    "The label is in place and the fill level is the same.",
    "Small differences of light and position are within what normal products show.",
)


def png(seed: int, size: int = 48) -> bytes:
    """Return a PNG of coloured squares, different for each seed."""
    return png_of_squares(np.random.default_rng(seed), size, size, cells=4, shades=(60, 220))


def draw_pairs(count: int, *, shots: int = 1) -> list[Pair]:
    """Return pairs over the five categories: a third normal, a third logical, a third structural."""
    names = list(LOCO_CATEGORIES)
    pairs = []
    for index in range(count):
        category, kind = names[index % 5], ("good", "logical", "structural")[index // 5 % 3]
        folder = kind if kind == "good" else f"{kind}_anomalies"
        path = f"{category}/test/{folder}/{index:03}.png"
        references = [
            image(png(10_000 + index % 5 + 7 * k), f"{category}/train/good/{k:03}.png") for k in range(shots)
        ]
        defect = f"{kind}_{index // 15 % 3}"
        pairs.append(make_pair(category, kind, references, image(png(index), path), defect=defect))
    return pairs


def write_predictions(
    out: Path,
    data: Path,
    *,
    skill: float = 0.7,
    seed: int = 0,
    samples: int = 1,
    scores: bool = True,
    responses: dict[str, str] | None = None,
) -> Path:
    """Write what a model of a given skill could say about every pair.

    Args:
        out: The JSON lines file.
        data: The pair parquet.
        skill: Share of right answers.
        seed: Of chance.
        samples: Responses per pair.
        scores: Whether it gives scores.
        responses: By pair_id, a response to write instead.
    """
    from lad_reasoner.inference.predictions import Prediction, PredictionStore, RunKey, Sampling, write_run_card
    from lad_reasoner.pairs.reader import data_sha256, read_truths

    rng = np.random.default_rng(seed)
    sampling = Sampling(
        temperature=float(samples > 1),
        max_new_tokens=256,
        seed=seed,
        structured=False,
        min_pixels=3136,
        max_pixels=401408,
    )
    key = RunKey(
        model=f"models/{out.stem}",
        model_digest=hashlib.sha256(out.stem.encode()).hexdigest(),
        backend="transformers",
        dtype="float32",
        prompt_sha256="a" * 64,
        data_sha256=data_sha256(data),
        sampling=sampling,
    )
    with PredictionStore(out, key) as store:
        for truth in read_truths(data):
            for sample in range(samples):
                line = _say(rng, truth.label, skill)
                if responses and truth.pair_id in responses:
                    line["response"] = responses[truth.pair_id]
                if not scores:
                    line["score"] = line["score_source"] = None
                store.append(Prediction(**dict(key), pair_id=truth.pair_id, sample=sample, **line))
    card = {"data": str(data), "pairs": len(read_truths(data)), "samples": samples, "hardware": "x86_64, 2 cores"}
    write_run_card(
        out, {**key.model_dump(), **card, "prompt_template": "{{ content }} Think.", "versions": {"p": "1"}}
    )
    return out


def _say(rng: np.random.Generator, label: str, skill: float) -> dict[str, Any]:
    right = rng.random() < skill
    said = label if right else ("no" if label == "yes" else "yes")
    sure = float(rng.beta(4, 1.6))
    score = 0.5 + 0.5 * sure if said == "yes" else 0.5 - 0.5 * sure
    reasoning = " ".join(rng.choice(SENTENCES, size=int(rng.integers(1, 5)), replace=False))
    response = f"<think> {reasoning} </think><answer> {said} </answer>"
    forced = rng.random() < 0.03
    return {
        "response": reasoning if forced else response,
        "score": score,
        "score_source": "forced" if forced else "answer_token",
        "prompt_tokens": 300,
        "response_tokens": len(reasoning.split()) + 10,
        "seconds": 0.1,
    }


@pytest.fixture
def write_runs(tmp_path: Path) -> WriteRuns:
    """Return a function that writes pairs and one file of predictions a model."""

    def write(count: int = 60, *, models: int = 2, **options: Any) -> tuple[Path, list[Path]]:
        data = write_pairs(tmp_path / "pairs.parquet", draw_pairs(count))
        names = ["base", "sft", "grpo", "sft-grpo", *(f"model-{k}" for k in range(4, models))]
        runs = [
            write_predictions(tmp_path / f"{name}.jsonl", data, skill=0.55 + 0.1 * place, seed=place, **options)
            for place, name in enumerate(names[:models])
        ]
        return data, runs

    return write
