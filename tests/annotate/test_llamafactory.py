"""`llamafactory-cli train` on a folder of `lad build sft`: json and parquet; and resuming that keeps all weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lad_datasets.annotate.annotate import annotate_with_templates
from lad_datasets.annotate.subjects import find_subjects
from lad_datasets.builders.sft import build_sft
from lad_reasoner.support.findings import Findings
from lad_reasoner.training.preflight.sft_config import check_sft

if TYPE_CHECKING:
    from tests.annotate.conftest import Trees

pytestmark = [pytest.mark.slow, pytest.mark.frameworks]


@pytest.fixture
def folder(trees: Trees, tmp_path: Path) -> Path:
    """A dataset folder built from template-written annotations."""
    subjects = find_subjects(trees.roots, mmad_root=trees.mmad, findings=Findings(quiet=True))
    annotate_with_templates(subjects, tmp_path / "qa", Findings(quiet=True))
    build_sft(tmp_path / "qa", tmp_path / "sft", rows=2731)
    return tmp_path / "sft"


def train(folder: Path, base: Path, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """Train with LLaMA-Factory and return its log; the config passes our check first."""
    config: dict[str, Any] = {
        "model_name_or_path": str(base),
        "image_max_pixels": 7056,
        "image_min_pixels": 3136,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "freeze_vision_tower": False,
        "freeze_multi_modal_projector": False,
        "freeze_language_model": False,
        "dataset_dir": str(folder),
        "dataset": "lad_sft",
        "template": "qwen2_vl",
        "cutoff_len": 512,
        "per_device_train_batch_size": 4,
        "learning_rate": 5e-4,
        "lr_scheduler_type": "constant",
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "dataloader_num_workers": 0,
        "preprocessing_num_workers": 1,
        "output_dir": str(out),
        "seed": 0,
        **changes,
    }
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config))
    assert not check_sft(file)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [str(Path(sys.executable).with_name("llamafactory-cli")), "train", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (out / "trainer_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if '"loss"' in line]


def weights(model: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(model / "model.safetensors"))


@pytest.fixture
def base(repository: Path) -> Path:
    return repository / "plugin" / "lad_rehearsal" / "demo" / "base"


def test_json_and_parquet_train_alike(folder: Path, base: Path, tmp_path: Path) -> None:
    logs = {
        name: train(folder, base, tmp_path / name, dataset=name, max_steps=2)
        for name in ("lad_sft", "lad_sft_parquet")
    }
    losses = {name: [line["loss"] for line in log] for name, log in logs.items()}
    assert len(losses["lad_sft"]) == 2
    assert losses["lad_sft"] == pytest.approx(losses["lad_sft_parquet"], rel=1e-4)  # the same rows and pixels
    before, after = weights(base), weights(tmp_path / "lad_sft")
    moved = {name for name in before if not before[name].float().equal(after[name].float())}
    assert any("visual" in name for name in moved)  # nothing was frozen
    assert any("visual" not in name for name in moved)


def test_resuming_keeps_the_language_model(folder: Path, base: Path, tmp_path: Path) -> None:
    """Four steps at once, and two and two with the checkpoint named twice, end at the same weights."""
    import torch

    train(folder, base, tmp_path / "whole")
    half = tmp_path / "whole" / "checkpoint-2"
    resumed = {"model_name_or_path": str(half), "resume_from_checkpoint": str(half)}
    train(folder, base, tmp_path / "resumed", **resumed)
    whole, again, start = weights(tmp_path / "whole"), weights(tmp_path / "resumed"), weights(base)
    language = [name for name in whole if "visual" not in name and "norm" not in name]
    assert language
    for name in language:
        assert not torch.equal(whole[name].float(), start[name].float())
        assert torch.allclose(whole[name].float(), again[name].float(), atol=1e-5), name


def test_resuming_alone_is_refused_by_the_check(folder: Path, base: Path, tmp_path: Path) -> None:
    file = tmp_path / "resume.yaml"
    config = {
        "model_name_or_path": str(base),
        "resume_from_checkpoint": str(tmp_path / "checkpoint-2"),
        "finetuning_type": "full",
    }
    file.write_text(yaml.safe_dump(config))
    assert any(finding.where == "resume_from_checkpoint" for finding in check_sft(file))
