"""Every command that measures prompts gives the same number for the same row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from tests.trainers.conftest import write_pairs

from lad_datasets.annotate.costs import prompt_tokens
from lad_datasets.annotate.prompt import prompt_text as annotation_prompt
from lad_datasets.annotate.subjects import Subject
from lad_datasets.checks.check import CheckOptions
from lad_datasets.checks.pairs import check_pairs
from lad_reasoner.pairs.prompt_length import PromptRuler
from lad_reasoner.pairs.tokens import ProcessorPixels, TrainerPixels
from lad_reasoner.training.easyr1.config import load_config, read_keys
from lad_reasoner.training.preflight import run_checks
from lad_reasoner.training.preflight.sft_data import check_data


@pytest.mark.parametrize("size", [(84, 84), (640, 480), (1600, 1280), (37, 900)])
@pytest.mark.parametrize("max_pixels", [50_176, 401_408])
def test_lad_check_and_easyr1_check_agree(tmp_path, good_words, *, size, max_pixels) -> None:
    file = write_pairs(tmp_path / "pairs.parquet", 8, size=size)
    options = CheckOptions(max_pixels=max_pixels, min_pixels=3136, easyr1=True)
    longest = check_pairs(file, options).facts["longest_prompt"]
    words = [f"data.train_files={file}", f"data.max_pixels={max_pixels}", "data.min_pixels=3136"]
    found = run_checks(load_config([*good_words, *words, "data.max_prompt_length=1"], read_keys(None)), None)
    lines = [str(finding) for finding in found if "data.max_prompt_length" in str(finding)]
    assert {int(number) for number in re.findall(r"(?:screw_bag|pushpins) (\d+)", lines[0])} == {longest}


def test_the_llama_factory_check_measures_with_the_same_ruler(tmp_path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "0.png")
    question, answer = "<image>\nIs there any defect in this gear?", "No. The gear shows no defect."
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    (tmp_path / "train.json").write_text(json.dumps([{"messages": turns, "images": ["0.png"]}]))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    entry = {"file_name": "train.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"lad_sft": entry}))
    ruler = PromptRuler(TrainerPixels(32 * 32, 200_704))
    length = ruler.measure(question + answer, [(640, 480)], turns=2)
    config = {"dataset": "lad_sft", "dataset_dir": str(tmp_path), "image_max_pixels": 200_704}
    assert not list(check_data({**config, "cutoff_len": length}))
    (finding,) = check_data({**config, "cutoff_len": length - 1})
    assert f"up to about {length} tokens" in str(finding)


def test_the_cost_estimate_measures_with_the_same_ruler(tmp_path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "0.png")
    subject = Subject(
        id="folder/gear/0",
        dataset="folder",
        category="gear",
        kind="good",
        mask=None,
        defect="good",
        image=Path(tmp_path / "0.png"),
    )
    ruler = PromptRuler(processor=ProcessorPixels(28, 56 * 56, 100_352))
    assert prompt_tokens(subject, max_pixels=100_352) == ruler.measure(annotation_prompt(subject), [(640, 480)])
