"""A small pair parquet, a model folder, and configs that name them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from safetensors.numpy import save_file
from tests.pair_files import write_rows

from lad_reasoner.pairs.schema import Image, Pair


def png(size: tuple[int, int], colour: int) -> Image:
    buffer = io.BytesIO()
    Picture.new("RGB", size, (colour % 256, 90, 120)).save(buffer, "PNG")
    return Image(data=buffer.getvalue(), path=f"{colour}.png", sha256="")


def pair(index: int, *, size: tuple[int, int] = (84, 84), dataset: str = "mvtec_ad", references: int = 1) -> Pair:
    label = "yes" if index % 2 else "no"
    return Pair(
        pair_id=f"{dataset}/{index}",
        dataset=dataset,
        category="screw_bag" if index % 3 else "pushpins",
        label=label,
        kind="logical" if index % 2 else "good",
        defect="missing" if index % 2 else "good",
        references=[png(size, index)] * references,
        query=png(size, index + 7),
    )


#: What gold answers of other forms hold, by the name of the training file in the profile that needs them.
FORMS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "grpo_classes": {"answers": "classes"},
    "grpo_boxes": {"boxes": [[0, 0, 0.5, 0.5]], "size": [1024, 1024]},
    "grpo_mmad": {"choice": {"letter": "A", "options": {"A": "Yes.", "B": "No."}}},
}


def in_form(row: dict[str, Any], form: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return a row with a gold answer in another form: changing letters, and no box on a normal query."""
    gold = json.loads(row["answer"]) | form
    if "choice" in form:
        gold["choice"] = form["choice"] | {"letter": "AB"[index % 2]}
    if "boxes" in form and gold["label"] == "no":
        gold["boxes"] = []
    answer = json.dumps(gold)
    return {**row, "answer": answer, "reward_model": {"style": "rule", "ground_truth": answer}}


def write_pairs(
    path: Path, count: int = 40, *, form: Mapping[str, Any] = MappingProxyType({}), **options: Any
) -> Path:
    return write_rows(path, [in_form(pair(index, **options).to_row(), form, index) for index in range(count)])


def assert_parts_logged(row: Mapping[str, float], prefix: str = "") -> None:
    """The reward's parts are among a step's metrics, of all rows and of a category."""
    parts = ("structure", "accuracy", "tp", "fp", "tn", "fn")
    assert {f"{prefix}{part}" for part in parts} <= set(row)
    assert any({f"{prefix}{part}_{name}" for part in parts} <= set(row) for name in ("screw_bag", "pushpins"))


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.parquet, val.parquet and model/, made once."""
    folder = tmp_path_factory.mktemp("workshop")
    write_pairs(folder / "train.parquet")
    write_pairs(folder / "val.parquet", 12, dataset="mvtec_loco")
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (model / name).write_text("{}")
    save_file({"weight": np.zeros(500, dtype=np.float16)}, model / "model.safetensors")
    return folder


@pytest.fixture
def good_words(workshop: Path) -> list[str]:
    """Words of a config with which nothing is wrong on any machine."""
    return [
        f"data.train_files={workshop}/train.parquet",
        f"data.val_files={workshop}/val.parquet",
        "data.prompt_key=problem",
        "data.format_prompt=plugin/lad_reasoner/task/prompts/rlad.jinja",
        "data.rollout_batch_size=8",
        "data.min_pixels=null",
        "worker.actor.global_batch_size=8",
        "worker.actor.micro_batch_size_per_device_for_update=4",
        "worker.actor.micro_batch_size_per_device_for_experience=4",
        f"worker.actor.model.model_path={workshop}/model",
        "worker.rollout.n=4",
        "worker.rollout.limit_images=2",
        "worker.rollout.tensor_parallel_size=1",
        "worker.rollout.val_override_config={n: 1, temperature: 0.0}",
        "worker.reward.reward_function=plugin/lad_reasoner/training/easyr1/reward.py:compute_score",
        "trainer.n_gpus_per_node=1",
        "trainer.max_steps=4",
        "trainer.logger=[console,file]",
        f"trainer.save_checkpoint_path={workshop}/run",
    ]
