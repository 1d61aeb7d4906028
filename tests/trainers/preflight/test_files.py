"""`easyr1 check` of the files that a run reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.trainers.conftest import write_pairs
from tests.trainers.preflight.kit import (
    KEYS,
    Broken,
    alarms,
    assert_found,
    made,
    model_config,
)

from lad_reasoner.models.compatibility import repair_model_folder
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.installed import Trainer
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.preflight.files import check_handover
from lad_rehearsal.demo.tiny import BASE

BROKEN = {
    "no training file": Broken(["data.train_files=~/none.parquet"], "error: data.train_files", "no such file"),
    "no validation file": Broken(["data.val_files=~/none.parquet"], "error: data.val_files", "no such file"),
    "no training file named": Broken(["data.train_files=''"], "error: data.train_files", "no file is named"),
    "not a parquet": Broken(
        ["data.train_files=!/text.parquet"],
        "error: !/text.parquet",
        "not readable parquet",
        lambda f: (f / "text.parquet").write_text("no parquet"),
    ),
    "truncated parquet": Broken(
        ["data.train_files=!/cut.parquet"],
        "error: !/cut.parquet",
        "not readable parquet",
        lambda f: (f / "cut.parquet").write_bytes(write_pairs(f / "whole.parquet").read_bytes()[:-200]),
    ),
    "stray README in the folder": Broken(
        ["data.train_files=!/folder"],
        "error: data.train_files",
        "first file it lists",
        lambda f: made(f / "folder", "README.md", "a.parquet"),
    ),
    "empty folder": Broken(
        ["data.train_files=!/hollow"], "error: data.train_files", "hollow is empty", lambda f: made(f / "hollow")
    ),
    "no format prompt": Broken(
        ["data.format_prompt=null"], "warning: data.format_prompt", "never asks for the template"
    ),
    "missing format prompt": Broken(
        ["data.format_prompt=~/none.jinja"], "error: data.format_prompt", "only print this"
    ),
    "prompt without content": Broken(
        ["data.format_prompt=!/mute.jinja"],
        "error: data.format_prompt",
        "{{ content }}",
        lambda f: (f / "mute.jinja").write_text("answer yes or no"),
    ),
    "prompt with an image": Broken(
        ["data.format_prompt=!/image.jinja"],
        "error: data.format_prompt",
        "belong to the problem",
        lambda f: (f / "image.jinja").write_text("<image> {{ content }}"),
    ),
    "broken jinja": Broken(
        ["data.format_prompt=!/broken.jinja"],
        "error: data.format_prompt",
        "cannot be rendered",
        lambda f: (f / "broken.jinja").write_text("{{ content"),
    ),
    "missing chat template": Broken(
        ["data.override_chat_template=~/none"], "error: data.override_chat_template", "does not exist"
    ),
    "missing image folder": Broken(["data.image_dir=~/none"], "error: data.image_dir", "the folder"),
    "no model": Broken(
        ["worker.actor.model.model_path=null"], "error: worker.actor.model.model_path", "no model is named"
    ),
    "missing model": Broken(
        ["worker.actor.model.model_path=/no/such"], "error: worker.actor.model.model_path", "/no/such does not exist"
    ),
    "unmerged checkpoint": Broken(
        ["worker.actor.model.model_path=!/actor"],
        "error: worker.actor.model",
        "easyr1 merge",
        lambda f: made(f / "actor"),
    ),
    "model without weights": Broken(
        ["worker.actor.model.model_path=!/hull"],
        "error: worker.actor.model",
        "no weights",
        lambda f: made(f / "hull", "config.json", "preprocessor_config.json"),
    ),
    "model without processor": Broken(
        ["worker.actor.model.model_path=!/blind"],
        "error: worker",
        "no image processor",
        lambda f: made(f / "blind", "config.json", "model.safetensors"),
    ),
    "a split of a file": Broken(["data.train_files=~/train.parquet@test"], "error: data.train_files", "split 'test'"),
    "a model without eyes": Broken(
        ["worker.actor.model.model_path=!/text_model"],
        "error: worker.actor.model.model_path",
        "a qwen2 model reads no images",
        lambda f: model_config(f / "text_model", model_type="qwen2"),
    ),
    "missing tokenizer": Broken(
        ["worker.actor.model.tokenizer_path=/no/such"], "error: worker.actor.model.tok", "/no/such does not exist"
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name, tmp_path, workshop, good_words, monkeypatch):
    assert_found(BROKEN[name], tmp_path, workshop, good_words, monkeypatch)


@pytest.mark.parametrize(
    "expression", ["1 / 0", "content.nothing.at.all", "''.__class__.__mro__", "range(10**9) | list"]
)
def test_a_prompt_that_cannot_be_rendered_is_one_sentence(expression, tmp_path, good_words):
    (tmp_path / "p.jinja").write_text("{{ content }} {{ " + expression + " }}")
    lines = alarms([*good_words, f"data.format_prompt={tmp_path}/p.jinja"])
    assert [
        line.startswith("error: data.format_prompt: this jinja template cannot be rendered") for line in lines
    ] == [True]
    assert "\n" not in lines[0]


def test_a_model_folder_that_is_not_made_yet_is_found(good_words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*good_words, "worker.actor.model.model_path=my_project/sft-model"]
    assert alarms(words) == []  # a name on the hub
    (tmp_path / "my_project").mkdir()
    (line,) = alarms(words)
    assert line.startswith("warning: worker.actor.model.model_path: the folder my_project/sft-model does not exist")


def test_a_model_that_cannot_be_fetched_is_found(good_words, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    words = [*good_words, "worker.actor.model.model_path=owner/model"]
    (line,) = alarms(words)
    assert line.startswith(f"error: worker.actor.model.model_path: {tmp_path} has no owner/model, and HF_HUB_OFFLINE")
    (tmp_path / "models--owner--model").mkdir()
    assert alarms(words) == []


def test_a_model_that_transformers_4_would_misread_is_found_for_easyr1(good_words, tmp_path):
    folder = Path(shutil.copytree(BASE, tmp_path / "model"))
    config = load_config([*good_words, f"worker.actor.model.model_path={folder}"], KEYS)

    def said(trainer: str) -> list[str]:
        known = Known(config=config, trainer=Trainer(trainer, "1", Path()), gpu=True)
        return [str(found) for found in check_handover(known)]

    (line,) = said("easyr1")
    assert line.startswith("warning: worker.actor.model.model_path: transformers 4 misreads ")
    assert line.endswith(f"Run `lad check {folder} --fix`.")
    assert said("verl") == []
    repair_model_folder(folder)
    assert said("easyr1") == []
