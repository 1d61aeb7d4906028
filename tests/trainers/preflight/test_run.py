"""`easyr1 check` of the course of a run: steps, logs, checkpoints."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tests.trainers.preflight.kit import (
    KEYS,
    Broken,
    assert_found,
    findings,
    finished_run,
    made,
    run_of_verl,
)

from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.preflight.run import check_disk

BROKEN = {
    "logger in a list": Broken(["trainer.logger=[[file]]"], "error: trainer.logger", "file"),
    "unknown logger": Broken(["trainer.logger=[consol]"], "error: trainer.logger", "'consol'"),
    "no steps": Broken(["trainer.max_steps=0"], "error: trainer.max_steps", "Train at least one step"),
    "saves after the end": Broken(["trainer.save_freq=100"], "warning: trainer.save_freq", "4 steps"),
    "validates after the end": Broken(["trainer.val_freq=100"], "warning: trainer.val_freq", "4 steps"),
    "validate only, but do not": Broken(
        ["trainer.val_only=true", "trainer.val_before_train=false"], "error: trainer.val_only", "Set both"
    ),
    "given checkpoint is the actor": Broken(
        ["trainer.load_checkpoint_path=!/actor"],
        "error: trainer.load_checkpoint_path",
        "global_step_<n>",
        lambda f: made(f / "actor"),
    ),
    "given checkpoint is empty": Broken(
        ["trainer.load_checkpoint_path=!/hollow/../global_step_9"],
        "error: trainer.load_checkpoint_path",
        "no actor folder",
        lambda f: made(f / "hollow"),
    ),
    "finished already": Broken(
        ["trainer.save_checkpoint_path=!/done"],
        "error: trainer.find_last_checkpoint",
        "nothing is left of 4 steps",
        lambda f: finished_run(f / "done"),
    ),
    "checkpoint would be overwritten": Broken(
        ["trainer.save_checkpoint_path=!/done", "trainer.find_last_checkpoint=false"],
        "warning: trainer.find_last_checkpoint",
        "may be overwritten",
        lambda f: finished_run(f / "done"),
    ),
    "another trainer's checkpoints": Broken(
        ["trainer.save_checkpoint_path=!/verls"],
        "warning: trainer.save_checkpoint_path",
        "checkpoints of verl",
        lambda f: run_of_verl(f / "verls"),
    ),
    "another run's checkpoints": Broken(
        ["trainer.save_checkpoint_path=!/done", "trainer.max_steps=40"],
        "warning: data.rollout_batch_size",
        "Choose another",
        lambda f: finished_run(f / "done"),
    ),
    "swanlab without a key": Broken(["trainer.logger=[file,swanlab]"], "warning: trainer.logger", "SWANLAB_API_KEY"),
    "warm-up beyond the end": Broken(
        ["worker.actor.optim.lr_warmup_steps=4"], "warning: worker.actor.optim.lr_warmup_steps", "not below 4"
    ),
    "wandb without a key": Broken(["trainer.logger=[console,wandb]"], "warning: trainer.logger", "WANDB_API_KEY"),
    "two nodes, no cluster": Broken(["trainer.nnodes=2"], "error: trainer.nnodes", "RAY_ADDRESS"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name, tmp_path, workshop, good_words, monkeypatch):
    assert_found(BROKEN[name], tmp_path, workshop, good_words, monkeypatch)


def test_what_is_no_fault_is_a_note(good_words):
    def said(*words: str) -> list[str]:
        quiet = ("algorithm.use_kl_loss", "images of")
        return [line for line in findings(list(words)) if not any(part in line for part in quiet)]

    kept = [word for word in good_words if not word.startswith("trainer.max_steps")]
    assert said(*kept, "trainer.total_epochs=3") == [
        "note: trainer.total_epochs: 40 pairs at 8 per step are 5 steps per epoch; 3 epochs are 15 steps"
    ]
    dozens = ["data.rollout_batch_size=12", "worker.actor.global_batch_size=12"]
    epochs = "40 pairs at 12 per step are 3 steps per epoch, 4 pairs left over each time; 4 steps are 1.3 epochs"
    assert said(*good_words, *dozens) == [f"note: trainer.max_steps: {epochs}"]
    (line,) = said(*good_words, "data.train_files=owner/data")
    assert line == "note: data.train_files: owner/data was not checked: only parquet files on this machine are"


def test_a_disk_too_small_for_the_checkpoints_is_found(good_words, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100 * 2**30))
    model = "worker.actor.model.model_path=x/Qwen2.5-VL-3B"
    words = [*good_words, model, "trainer.save_freq=1", "trainer.save_limit=2"]

    def found(*more: str) -> list[str]:
        known = Known(config=load_config([*words, *more], KEYS), trainer=None, gpu=False)
        return [str(finding) for finding in check_disk(known)]

    (line,) = found()
    assert "3 checkpoints need about 125.7 GiB (estimated), and 100.0 GiB are free" in line
    assert found("trainer.save_model_only=true") == []
