"""`lad check` of LLaMA-Factory configs: each trap is found, and a sound config is not accused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from lad_reasoner.support.errors import DataError
from lad_reasoner.training.preflight.sft_config import check_sft

pytestmark = pytest.mark.frameworks  # the keys are those of the installed LLaMA-Factory

TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
GONE = object()


def build(folder: Path, rows: list[dict[str, Any]] | None = None, **entry: Any) -> None:
    """Write a dataset folder as `lad build sft` does, with one row of one 448x448 image."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (448, 448)).save(folder / "a.png")
    turns = [{"role": "user", "content": "<image>Any defect?"}, {"role": "assistant", "content": "No."}]
    sound = [{"messages": turns, "images": ["a.png"]}]
    (folder / "train.json").write_text(json.dumps(sound if rows is None else rows))
    plain = {
        "file_name": "train.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": TAGS,
    }
    (folder / "dataset_info.json").write_text(json.dumps({"lad_sft": plain | entry}))


def config(folder: Path, **changes: Any) -> Path:
    sound: dict[str, Any] = {
        "model_name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "freeze_vision_tower": False,
        "freeze_multi_modal_projector": False,
        "freeze_language_model": False,
        "image_max_pixels": 401408,
        "image_min_pixels": 3136,
        "dataset_dir": str(folder / "sft"),
        "dataset": "lad_sft",
        "template": "qwen2_vl",
        "cutoff_len": 1024,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "output_dir": str(folder / "out"),
        "save_strategy": "no",
        "report_to": "none",
    }
    merged = {key: value for key, value in (sound | changes).items() if value is not GONE}
    path = folder / "sft.yaml"
    path.write_text(yaml.safe_dump(merged))
    return path


def said(path: Path) -> str:
    return "\n".join(map(str, check_sft(path)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build(tmp_path / "sft")
    return tmp_path


def test_a_sound_config_is_not_accused(folder: Path) -> None:
    assert said(config(folder)) == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"learning_rat": 1e-6},
            "error: learning_rat: LLaMA-Factory has no such key. Did you mean learning_rate?",
        ),
        (
            {"save_strategy": False},
            "error: save_strategy: it is the boolean False, not a word. Write it in quotes",
        ),
        ({"eval_strategy": False}, "error: eval_strategy"),
        ({"report_to": False}, "error: report_to"),
        ({"stage": "dpo"}, "error: stage"),
        ({"do_train": GONE}, "error: do_train"),
        ({"do_predict": True}, "error: do_predict: it must not be true. Predict with `lad predict`"),
        ({"predict_with_generate": True}, "error: predict_with_generate"),
        ({"freeze_vision_tower": GONE}, "error: freeze_vision_tower: it is not set"),
        ({"freeze_language_model": GONE}, "error: freeze_language_model"),
        ({"freeze_vision_tower": True}, "warning: freeze_vision_tower"),
        (
            {"template": "qwen3_vl"},
            "error: template: 'qwen3_vl' does not fit Qwen/Qwen2.5-VL-3B-Instruct. Use qwen2_vl",
        ),
        ({"template": GONE}, "error: template: it is not set"),
        ({"model_name_or_path": "Qwen/Qwen3-VL-4B-Instruct"}, "Use qwen3_vl or qwen3_vl_nothink"),
        ({"model_name_or_path": GONE}, "error: model_name_or_path"),
        (
            {"resume_from_checkpoint": "out/checkpoint-7"},
            "error: resume_from_checkpoint: it is out/checkpoint-7, but",
        ),
        ({"load_best_model_at_end": True}, "error: load_best_model_at_end"),
        ({"output_dir": GONE}, "error: output_dir"),
        ({"image_max_pixels": GONE}, "warning: image_max_pixels: it is not set, and the default is 589824"),
        ({"image_min_pixels": 500000}, "error: image_min_pixels"),
        ({"per_device_train_batch_size": 3}, "warning: per_device_train_batch_size: 3 x"),
        ({"per_device_train_batch_size": 0}, "error: per_device_train_batch_size"),
        ({"deepspeed": "none.json"}, "error: deepspeed: none.json is not JSON"),
        (
            {"cutoff_len": 200},
            "error: cutoff_len: 200 is too small for the images alone of 1 rows (up to 288 tokens)",
        ),
        ({"cutoff_len": 257}, "error: cutoff_len"),
        ({"cutoff_len": 280}, "warning: cutoff_len"),
        ({"dataset": "other"}, "error: dataset: dataset_info.json has no other. Use one of lad_sft"),
        ({"dataset": GONE}, "error: dataset: no dataset is named"),
        ({"dataset_dir": "nowhere"}, "error: dataset_dir: nowhere/dataset_info.json is not readable"),
    ],
)
def test_each_trap_is_found(folder: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in said(config(folder, **changes))


USER, ASSISTANT = {"role": "user", "content": "<image>Any?"}, {"role": "assistant", "content": "No."}


@pytest.mark.parametrize(
    ("rows", "entry", "expected"),
    [
        ([], {}, "it has no rows"),
        ([{"messages": [USER], "images": ["a.png"]}], {}, "1 rows have no assistant's turn"),
        ([{"messages": [USER, ASSISTANT], "images": []}], {}, "1 rows have more or fewer <image> than images"),
        ([{"messages": [USER, ASSISTANT], "images": ["b.png"]}], {}, "error: b.png: no readable file"),
        ([{"conversations": [USER]}], {}, "row 1 has no 'messages'"),
        (None, {"formatting": "alpaca"}, "error: lad_sft: formatting"),
        (
            None,
            {"tags": {"role_tag": "role"}},
            "error: lad_sft: tags: content_tag, user_tag, assistant_tag must be given",
        ),
        (None, {"file_name": "gone.json"}, "gone.json: no such file"),
    ],
)
def test_broken_data_is_found(tmp_path: Path, rows: list[dict[str, Any]] | None, entry: Any, expected: str) -> None:
    build(tmp_path / "sft", rows, **entry)
    assert expected in said(config(tmp_path))


def test_resuming_by_itself_is_found_and_has_two_ways_out(folder: Path) -> None:
    checkpoint = folder / "out" / "checkpoint-12"
    for name in ("checkpoint-9", "checkpoint-12"):
        (folder / "out" / name).mkdir(parents=True)
    found = said(config(folder))
    assert found.startswith("error: output_dir")
    assert str(checkpoint) in found
    assert said(config(folder, overwrite_output_dir=True)) == ""
    again = {"model_name_or_path": str(checkpoint), "resume_from_checkpoint": str(checkpoint)}
    assert said(config(folder, **again)) == ""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"zero_optimization": {"stage": 3}}, "stage3_gather_16bit_weights_on_model_save"),
        ({"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": 4}, 'Set it to "auto"'),
        ({}, "error: deepspeed"),
    ],
)
def test_a_deepspeed_file_that_contradicts_is_found(folder: Path, settings: dict[str, Any], expected: str) -> None:
    (folder / "ds.json").write_text(json.dumps(settings))
    assert expected in said(config(folder, deepspeed=str(folder / "ds.json")))


def test_ray_is_not_asked_to_start_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_RAY", "1")
    assert "error: USE_RAY" in said(config(folder))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_what_is_no_config_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(DataError, match=r"a\.yaml"):
        check_sft(tmp_path / "a.yaml")


def test_every_shipped_profile_passes_once_its_data_is_there(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = sorted((repository / "examples" / "sft").glob("*.yaml"))
    assert len(profiles) >= 5
    (tmp_path / "examples").symlink_to(repository / "examples")
    build(tmp_path / "data" / "sft")
    monkeypatch.chdir(tmp_path)
    for profile in profiles:
        findings = [finding for finding in check_sft(profile) if finding.where != "deepspeed"]
        assert not findings, profile.name


def test_lad_check_knows_the_kind(folder: Path) -> None:
    from lad_datasets.checks.check import CheckOptions, check_file

    report = check_file(config(folder, save_strategy=False), CheckOptions())
    assert (report.kind, len(report.errors)) == ("LLaMA-Factory config", 1)
