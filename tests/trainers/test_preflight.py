"""`easyr1 check`: each broken config is found, by its key and with a remedy, and a good one gives no alarm."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

from lad_datasets.files.parquet import path_schema
from lad_reasoner.models.compatibility import mend
from lad_reasoner.pairs.schema import pair_schema
from lad_reasoner.support.errors import LadError
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.easyr1.keys import read_snapshot
from lad_reasoner.training.installed import Trainer
from lad_reasoner.training.preflight import CHECKS, machine
from lad_reasoner.training.preflight import data as data_checks
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.preflight.data import check_image_storage, check_verl_columns
from lad_reasoner.training.preflight.files import check_handover
from lad_reasoner.training.preflight.model_size import training_memory
from lad_reasoner.training.preflight.run import check_disk
from lad_rehearsal.demo.tiny import BASE

from .conftest import pair, write_pairs, write_rows

KEYS = read_snapshot()
EASYR1 = Trainer("easyr1", "0.3.3.dev0", Path())
MISSING = "no such file"


#: Checks whose findings depend on the machine that runs the tests.
OF_MACHINE = {"check_trainer", "check_packages", "check_gpus", "check_cpus", "check_memory", "check_disk"}


def findings(
    words: list[str], *, trainer: Trainer | None = None, gpu: bool = False, of_machine: bool = False
) -> list[str]:
    """Return the findings about a config, as lines."""
    try:
        config = load_config(words, KEYS)
    except LadError as error:
        return [f"error: {error}"]
    known = Known(config=config, trainer=trainer, keys=KEYS, gpu=gpu)
    checks = [check for check in CHECKS if of_machine or check.__name__ not in OF_MACHINE]
    return [str(found) for check in checks for found in check(known)]


def alarms(words: list[str], **options) -> list[str]:
    """Return the errors and warnings; a note is no fault."""
    return [line for line in findings(words, **options) if not line.startswith("note: ")]


def test_a_good_config_gives_no_alarm(good_words):
    assert alarms(good_words) == []


def test_all_optional_rewards_give_no_alarm(good_words):
    options = (
        "worker.reward.reward_function_kwargs={soft_length_weight: 0.1, naming_weight: 0.2, overlong_weight: 0.5, "
        "overlong_limit: '${data.max_response_length}'}"
    )
    assert alarms([*good_words, options]) == []


#: What is broken, the words that break a good config, and what the finding must say. ``~`` stands for the workshop.
BROKEN = {
    "unknown key": (["trainer.max_step=3"], "error: trainer.max_step", "did you mean trainer.max_steps"),
    "wrong type": (["worker.rollout.n=many"], "error: worker.rollout.n", "int"),
    "no training file": (["data.train_files=~/none.parquet"], "error: data.train_files", MISSING),
    "no validation file": (["data.val_files=~/none.parquet"], "error: data.val_files", MISSING),
    "no training file named": (["data.train_files=''"], "error: data.train_files", "found nothing"),
    "validation file null": (["data.val_files="], "error: data.val_files", "(EasyR1 declares str)"),
    "not a parquet": (["data.train_files=~/text.parquet"], "error: ~/text.parquet", "no readable parquet"),
    "truncated parquet": (["data.train_files=~/cut.parquet"], "error: ~/cut.parquet", "no readable parquet"),
    "no rows": (["data.train_files=~/empty.parquet"], "error: data.train_files", "no rows"),
    "stray README in the folder": (["data.train_files=~/folder"], "error: data.train_files", "first file it lists"),
    "empty folder": (["data.train_files=~/hollow"], "error: data.train_files", "an empty folder"),
    "prompt column": (["data.prompt_key=question"], "error: data.prompt_key", "'question'"),
    "answer column": (["data.answer_key=label2"], "error: data.answer_key", "'label2'"),
    "image column": (["data.image_key=pictures"], "error: data.image_key", "'pictures'"),
    "one marker, two images": (["data.train_files=~/one_marker.parquet"], "error: data.train_files", "1 of 40 rows"),
    "three markers": (["data.train_files=~/three_markers.parquet"], "error: data.train_files", "1 of 40 rows"),
    "unreadable image": (["data.train_files=~/bad_image.parquet"], "error: data.train_files", "image 1 of a pair"),
    "limit_images": (["worker.rollout.limit_images=1"], "error: worker.rollout.limit_images", "Set it to 2"),
    "three images": (["data.train_files=~/two_shot.parquet"], "error: worker.rollout.limit_images", "Set it to 3"),
    "unreadable gold": (["data.train_files=~/bad_gold.parquet"], "error: data.train_files", "gold answer"),
    "gold from a wrong column": (["data.answer_key=pair_id"], "error: data.train_files", "gold answer"),
    "one label": (["data.train_files=~/one_label.parquet"], "warning: data.train_files", "every answer is no"),
    "LOCO in training": (["data.train_files=~/loco.parquet"], "error: data.train_files", "mvtec_loco"),
    "validation is training": (["data.val_files=~/train.parquet"], "warning: data.val_files", "the training file"),
    "pixel bounds crossed": (
        ["data.min_pixels=9000", "data.max_pixels=5000"],
        "error: data.min_pixels",
        "at most data.max_pixels",
    ),
    "stock min_pixels": (["data.min_pixels=262144"], "warning: data.min_pixels", "would be enlarged"),
    "prompts too long": (["data.train_files=~/large.parquet"], "error: data.max_prompt_length", "so none is left"),
    "some prompts too long": (
        ["data.train_files=~/mixed.parquet"],
        "warning: data.max_prompt_length",
        "would be dropped",
    ),
    "prompts cut": (
        ["data.train_files=~/mixed.parquet", "data.filter_overlong_prompts=false"],
        "error: data.max_prompt_length",
        "or data.max_pixels to",
    ),
    "batch above the data": (["data.rollout_batch_size=64"], "error: data.rollout_batch_size", "at most 40"),
    "last batch lost": (
        ["data.rollout_batch_size=24", "worker.actor.global_batch_size=24"],
        "warning: data.rollout_batch_size",
        "16 of 40 pairs are dropped",
    ),
    "no format prompt": (["data.format_prompt=null"], "warning: data.format_prompt", "never told the template"),
    "missing format prompt": (["data.format_prompt=~/none.jinja"], "error: data.format_prompt", "only print this"),
    "prompt without content": (["data.format_prompt=~/mute.jinja"], "error: data.format_prompt", "{{ content }}"),
    "prompt with an image": (
        ["data.format_prompt=~/image.jinja"],
        "error: data.format_prompt",
        "belong to the problem",
    ),
    "broken jinja": (["data.format_prompt=~/broken.jinja"], "error: data.format_prompt", "cannot be rendered"),
    "missing chat template": (["data.override_chat_template=~/none"], "error: data.override_chat_template", "no such"),
    "missing image folder": (["data.image_dir=~/none"], "error: data.image_dir", "no such folder"),
    "no model": (["worker.actor.model.model_path=null"], "error: worker.actor.model.model_path", "found none"),
    "missing model": (["worker.actor.model.model_path=/no/such"], "error: worker.actor.model.model_path", "no such"),
    "unmerged checkpoint": (["worker.actor.model.model_path=~/actor"], "error: worker.actor.model", "easyr1 merge"),
    "model without weights": (["worker.actor.model.model_path=~/hull"], "error: worker.actor.model", "no weights"),
    "model without processor": (["worker.actor.model.model_path=~/blind"], "error: worker", "no image processor"),
    "no reward": (["worker.reward.reward_function=null"], "error: worker.reward.reward_function", "found none"),
    "missing reward file": (["worker.reward.reward_function=~/none.py:f"], "error: worker.reward", "no reward file"),
    "missing reward function": (
        ["worker.reward.reward_function=~/list.py:f"],
        "error: worker.reward",
        "no function f",
    ),
    "reward import fails": (["worker.reward.reward_function=~/import.py"], "error: worker.reward", "on import"),
    "too few scores": (["worker.reward.reward_function=~/few.py"], "error: worker.reward", "1 scores for 6 responses"),
    "no overall": (["worker.reward.reward_function=~/bare.py"], "error: worker.reward", "a dict with overall"),
    "score not a float": (["worker.reward.reward_function=~/text.py"], "error: worker.reward", "plain floats"),
    "slash in a key": (["worker.reward.reward_function=~/slash.py"], "error: worker.reward", "has a slash"),
    "reward raises": (["worker.reward.reward_function=~/raise.py"], "error: worker.reward", "ZeroDivisionError"),
    "constant reward": (["worker.reward.reward_function=~/list.py"], "warning: worker.reward", "trains nothing"),
    "unknown reward option": (
        ["worker.reward.reward_function_kwargs.weight=1"],
        "error: worker.reward.reward_function_kwargs.weight",
        "no such option",
    ),
    "reward option mistyped": (
        ["worker.reward.reward_function_kwargs={structure_wieght: 0.5}"],
        "error: worker.reward.reward_function_kwargs.structure_wieght",
        "expected structure_weight",
    ),
    "weight as text": (
        ["worker.reward.reward_function_kwargs={naming_weight: 'a fifth'}"],
        "error: worker.reward.reward_function_kwargs.naming_weight",
        "found 'a fifth', expected a number",
    ),
    "negative weight": (
        ["worker.reward.reward_function_kwargs={accuracy_weight: -0.5}"],
        "error: worker.reward.reward_function_kwargs.accuracy_weight",
        "a number from 0 on",
    ),
    "weights all zero": (
        ["worker.reward.reward_function_kwargs={structure_weight: 0, accuracy_weight: 0}"],
        "error: worker.reward.reward_function_kwargs.accuracy_weight",
        "pays for something",
    ),
    "overlong without a limit": (
        ["worker.reward.reward_function_kwargs={overlong_weight: 1.0}"],
        "error: worker.reward.reward_function_kwargs.overlong_limit",
        "data.max_response_length",
    ),
    "overlong limit out of reach": (
        ["worker.reward.reward_function_kwargs={overlong_weight: 1.0, overlong_limit: 1024}"],
        "error: worker.reward.reward_function_kwargs.overlong_limit",
        "No response would reach the penalty",
    ),
    "overlong limit before the cut": (
        ["worker.reward.reward_function_kwargs={overlong_weight: 1.0, overlong_limit: 256}"],
        "warning: worker.reward.reward_function_kwargs.overlong_limit",
        "data.max_response_length, 512",
    ),
    "too short to be long enough": (
        [
            "data.max_response_length=100",
            "worker.reward.reward_function_kwargs={soft_length_weight: 0.1, soft_length_shortest: 200}",
        ],
        "error: worker.reward.reward_function_kwargs.soft_length_shortest",
        "at most data.max_response_length, 100",
    ),
    "never too long": (
        ["worker.reward.reward_function_kwargs={soft_length_weight: 0.1, soft_length_longest: 600}"],
        "warning: worker.reward.reward_function_kwargs.soft_length_longest",
        "No response would ever be too long",
    ),
    "nothing to name": (
        ["worker.reward.reward_function_kwargs={naming_weight: 0.1}", "data.train_files=~/nameless.parquet"],
        "error: worker.reward.reward_function_kwargs.naming_weight",
        "20 of 20 anomalous pairs",
    ),
    "unknown estimator": (["algorithm.adv_estimator=gpro"], "error: algorithm.adv_estimator", "grpo"),
    "unknown KL penalty": (["algorithm.kl_penalty=k4"], "error: algorithm.kl_penalty", "low_var_kl"),
    "unknown loss": (["worker.actor.loss_type=vanilla"], "error: worker.actor.loss_type", "default"),
    "unknown dtype": (["worker.rollout.dtype=half"], "error: worker.rollout.dtype", "bf16"),
    "negative KL": (["algorithm.kl_coef=-1"], "error: algorithm.kl_coef", "at least 0"),
    "no GPU asked for": (["trainer.n_gpus_per_node=0"], "error: trainer.n_gpus_per_node", "at least 1"),
    "zero learning rate": (["worker.actor.optim.lr=0"], "error: worker.actor.optim.lr", "above zero"),
    "one sample a prompt": (["worker.rollout.n=1"], "error: worker.rollout.n", "at least 2 with grpo"),
    "greedy training": (["worker.rollout.temperature=0"], "error: worker.rollout.temperature", "no advantage"),
    "mini batch": (["worker.actor.global_batch_size=5"], "error: data.rollout_batch_size", "a multiple of"),
    "experience micro batch": (
        ["worker.actor.micro_batch_size_per_device_for_experience=5"],
        "error: worker.actor.micro_batch_size_per_device_for_experience",
        "a divisor of rollout_batch_size x n, 32",
    ),
    "update micro batch": (
        ["worker.actor.micro_batch_size_per_device_for_update=5"],
        "error: worker.actor.micro_batch_size_per_device_for_update",
        "a divisor of 32",
    ),
    "more GPUs than samples divide into": (["trainer.n_gpus_per_node=3"], "error: trainer.n_gpus", "a divisor of 32"),
    "offload with accumulation": (
        ["worker.actor.fsdp.enable_cpu_offload=true"],
        "error: worker.actor.fsdp.enable_cpu_offload",
        "offload_params",
    ),
    "mini rollouts": (["data.mini_rollout_batch_size=3"], "error: data.mini_rollout_batch_size", "a divisor"),
    "too few batched tokens": (
        ["worker.rollout.max_num_batched_tokens=600"],
        "error: worker.rollout.max_num_batched_tokens",
        "at least 1024",
    ),
    "short model length": (["worker.rollout.max_model_len=600"], "error: worker.rollout.max_model_len", "1024"),
    "tensor parallel": (
        ["worker.rollout.tensor_parallel_size=2"],
        "error: worker.rollout.tensor_parallel",
        "1 is right",
    ),
    "no n for validation": (
        ["worker.rollout.val_override_config={temperature: 0}"],
        "error: worker.rollout.val_override_config",
        "n: 1",
    ),
    "sampled validation": (
        ["worker.rollout.val_override_config={n: 1}"],
        "warning: worker.rollout.val_override_config",
        "temperature: 0.0",
    ),
    "KL on and off": (
        ["algorithm.disable_kl=true", "algorithm.use_kl_loss=true"],
        "warning: algorithm.use_kl_loss",
        "No KL is applied",
    ),
    "KL of weight zero": (["algorithm.kl_coef=0"], "warning: algorithm.kl_coef", "disable_kl=true"),
    "empty filter": (
        ["algorithm.online_filtering=true", "algorithm.filter_low=0.99"],
        "error: algorithm.filter_low",
        "less than",
    ),
    "LoRA on the vision tower": (["worker.actor.model.lora.rank=8"], "warning: worker.actor.model.lora", "visual"),
    "logger in a list": (["trainer.logger=[[file]]"], "error: trainer.logger", "file"),
    "unknown logger": (["trainer.logger=[consol]"], "error: trainer.logger", "'consol'"),
    "no steps": (["trainer.max_steps=0"], "error: trainer.max_steps", "at least one step"),
    "saves after the end": (["trainer.save_freq=100"], "warning: trainer.save_freq", "4 steps"),
    "validates after the end": (["trainer.val_freq=100"], "warning: trainer.val_freq", "4 steps"),
    "validate only, but do not": (
        ["trainer.val_only=true", "trainer.val_before_train=false"],
        "error: trainer.val_only",
        "set both",
    ),
    "given checkpoint is the actor": (
        ["trainer.load_checkpoint_path=~/actor"],
        "error: trainer.load_checkpoint_path",
        "global_step_<n>",
    ),
    "given checkpoint is empty": (
        ["trainer.load_checkpoint_path=~/hollow/../global_step_9"],
        "error: trainer.load_checkpoint_path",
        "no actor folder",
    ),
    "finished already": (
        ["trainer.save_checkpoint_path=~/done"],
        "error: trainer.find_last_checkpoint",
        "nothing is left of 4 steps",
    ),
    "checkpoint would be overwritten": (
        ["trainer.save_checkpoint_path=~/done", "trainer.find_last_checkpoint=false"],
        "warning: trainer.find_last_checkpoint",
        "may be overwritten",
    ),
    "another trainer's checkpoints": (
        ["trainer.save_checkpoint_path=~/verls"],
        "warning: trainer.save_checkpoint_path",
        "checkpoints of verl",
    ),
    "another run's checkpoints": (
        ["trainer.save_checkpoint_path=~/done", "trainer.max_steps=40"],
        "warning: data.rollout_batch_size",
        "Choose another",
    ),
    "a split of a file": (["data.train_files=~/train.parquet@test"], "error: data.train_files", "split 'test'"),
    "structs without bytes": (
        ["data.train_files=~/hollow.parquet"],
        "error: data.train_files",
        "a path without bytes",
    ),
    "Image features": (["data.train_files=~/features.parquet"], "warning: data.train_files", "Image features"),
    "a model without eyes": (
        ["worker.actor.model.model_path=~/text_model"],
        "error: worker.actor.model.model_path",
        "a qwen2 model, which sees no images",
    ),
    "missing tokenizer": (["worker.actor.model.tokenizer_path=/no/such"], "error: worker.actor.model.tok", "no such"),
    "mistyped sampling": (
        ["worker.rollout.val_override_config={n: 1, temperature: 0.0, top_q: 0.9}"],
        "error: worker.rollout.val_override_config.top_q",
        "Did you mean top_",
    ),
    "ulysses": (["worker.actor.ulysses_size=2"], "error: worker.actor.ulysses_size", "a divisor of 1"),
    "ulysses with padding": (
        ["worker.actor.ulysses_size=2", "trainer.n_gpus_per_node=2", "worker.actor.padding_free=false"],
        "error: worker.actor.padding_free",
        "Set it to true",
    ),
    "shards": (
        ["worker.actor.fsdp.fsdp_size=3", "trainer.n_gpus_per_node=4"],
        "error: worker.actor.fsdp.fsdp_size",
        "a divisor of 4",
    ),
    "critic micro batch": (
        ["algorithm.adv_estimator=gae", "worker.critic.micro_batch_size_per_device_for_experience=5"],
        "error: worker.critic.micro_batch_size_per_device_for_experience",
        "a divisor of rollout_batch_size x n, 32",
    ),
    "experience micro batch of a GPU": (
        [
            "trainer.n_gpus_per_node=4",
            "worker.actor.micro_batch_size_per_device_for_experience=16",
            "worker.actor.dynamic_batching=false",
        ],
        "error: worker.actor.micro_batch_size_per_device_for_experience",
        "a divisor of 8, the samples of a step on one GPU",
    ),
    "update that GPUs do not share": (
        ["data.rollout_batch_size=12", "worker.actor.global_batch_size=3", "trainer.n_gpus_per_node=8"],
        "error: worker.actor.global_batch_size",
        "found 12 samples an update, expected a multiple of 8 ranks",
    ),
    "unknown precision": (["worker.actor.fsdp.torch_dtype=bf"], "error: worker.actor.fsdp.torch_dtype", "bfloat16"),
    "empty validation batch": (["data.val_batch_size=0"], "error: data.val_batch_size", "or -1 for all"),
    "top_k": (["worker.rollout.top_k=-2"], "error: worker.rollout.top_k", "at least -1"),
    "learning rate that falls too low": (
        ["worker.actor.optim.min_lr_ratio=1.5"],
        "error: worker.actor.optim.min_lr_ratio",
        "0 to 1",
    ),
    "rank of LoRA": (["worker.actor.model.lora.rank=12"], "error: worker.actor.model.lora.rank", "one of 8, 16, 32"),
    "heads of a published model": (
        [
            "worker.actor.model.model_path=Qwen/Qwen2.5-VL-7B-Instruct",
            "worker.rollout.tensor_parallel_size=8",
            "trainer.n_gpus_per_node=8",
        ],
        "error: worker.rollout.tensor_parallel_size",
        "a divisor of 28, the model's attention heads",
    ),
    "heads of a model folder": (
        ["worker.actor.model.model_path=~/small", "worker.actor.ulysses_size=2", "trainer.n_gpus_per_node=2"],
        "error: worker.actor.ulysses_size",
        "a divisor of 3, the model's attention heads",
    ),
    "longer than the model's positions": (
        ["worker.actor.model.model_path=~/small"],
        "error: data.max_response_length",
        "found 1024 tokens, expected at most 600",
    ),
    "engine longer than the model's positions": (
        ["worker.actor.model.model_path=~/small", "worker.rollout.max_model_len=2048"],
        "error: worker.rollout.max_model_len",
        "found 2048 tokens, expected at most 600",
    ),
    "reward of nothing": (
        ["worker.reward.reward_function=~/none_value.py"],
        "error: worker.reward",
        "of type NoneType",
    ),
    "reward of numpy": (
        ["worker.reward.reward_function=~/numpy_value.py"],
        "error: worker.reward",
        "float(value)",
    ),
    "reward that is no number": (["worker.reward.reward_function=~/nan.py"], "error: worker.reward", "poison"),
    "reward of wrong answers": (
        ["worker.reward.reward_function=~/inverted.py"],
        "warning: worker.reward.reward_function",
        "it gives 0 to the right answer and 1 to the wrong one",
    ),
    "reward with a relative import": (
        ["worker.reward.reward_function=~/relative.py"],
        "error: worker.reward",
        "on import",
    ),
    "swanlab without a key": (["trainer.logger=[file,swanlab]"], "warning: trainer.logger", "SWANLAB_API_KEY"),
    "critic batch": (
        ["algorithm.adv_estimator=gae", "worker.critic.global_batch_size=5"],
        "error: worker.critic.global_batch_size",
        "a divisor of rollout_batch_size, 8",
    ),
    "adaptive KL without a horizon": (
        ["algorithm.kl_type=adaptive", "algorithm.kl_horizon=0"],
        "error: algorithm.kl_horizon",
        "above zero",
    ),
    "warm-up beyond the end": (
        ["worker.actor.optim.lr_warmup_steps=4"],
        "warning: worker.actor.optim.lr_warmup_steps",
        "less than 4",
    ),
    "warm-up ratio": (["worker.actor.optim.lr_warmup_ratio=2"], "error: worker.actor.optim.lr_warmup", "0 to 1"),
    "reward trips over line breaks": (
        ["worker.reward.reward_function=~/one_line.py"],
        "warning: worker.reward.reward_function",
        "0 instead of 1 to the same answer with line breaks",
    ),
    "filter by an unknown key": (
        ["algorithm.online_filtering=true", "algorithm.filter_key=accuracy_normalized"],
        "error: algorithm.filter_key",
        "a key of the reward: overall, structure",
    ),
    "wandb without a key": (["trainer.logger=[console,wandb]"], "warning: trainer.logger", "WANDB_API_KEY"),
    "logger is a word": (["trainer.logger=console"], "error: trainer.logger", "tuple"),
    "two nodes, no cluster": (["trainer.nnodes=2"], "error: trainer.nnodes", "RAY_ADDRESS"),
}


@pytest.fixture(scope="session")
def broken_things(workshop):
    """The workshop with everything that the table names."""
    tmp_path = workshop
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "train.parquet").read_bytes()[:-200])
    write_rows(tmp_path / "empty.parquet", [])
    rows = [pair(index).to_row() for index in range(40)]
    for name, change in {
        "one_marker": {"problem": "<image> only"},
        "three_markers": {"problem": "<image><image><image>"},
        "bad_image": {"images": [{"bytes": b"no image", "path": "a.png"}] * 2},
        "bad_gold": {"answer": "perhaps"},
    }.items():
        write_rows(tmp_path / f"{name}.parquet", [{**rows[0], **change}, *rows[1:]])
    write_rows(tmp_path / "one_label.parquet", rows[::2] * 2)
    labels = [json.dumps({"label": "yes" if index % 2 else "no"}) for index in range(40)]
    write_rows(
        tmp_path / "nameless.parquet", [{**row, "answer": gold} for row, gold in zip(rows, labels, strict=True)]
    )
    hollow = [{"bytes": None, "path": str(tmp_path / name)} for name in ("reference.png", "query.png")]
    for image in hollow:
        Picture.new("RGB", (84, 84)).save(image["path"])
    write_rows(tmp_path / "hollow.parquet", [{**row, "images": hollow} for row in rows])
    features = {"info": {"features": {"images": [{"_type": "Image"}]}}}
    table = pa.Table.from_pylist(rows, schema=pair_schema())
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "features.parquet")
    write_pairs(tmp_path / "two_shot.parquet", references=2)
    write_pairs(tmp_path / "loco.parquet", dataset="mvtec_loco")
    write_pairs(tmp_path / "large.parquet", 8, size=(800, 800))
    write_rows(tmp_path / "mixed.parquet", [*rows, pair(40, size=(800, 800)).to_row()])
    for folder, names in {
        "folder": ["README.md", "a.parquet"],
        "hollow": [],
        "actor": [],
        "hull": ["config.json", "preprocessor_config.json"],
        "blind": ["config.json", "model.safetensors"],
        "global_step_9": [],
        "done/global_step_4/actor": [],
        "done/attempts/001": [],
        "verls/global_step_2": [],
    }.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (tmp_path / folder / name).touch()
    (tmp_path / "small").mkdir(exist_ok=True)
    (tmp_path / "small" / "config.json").write_text('{"num_attention_heads": 3, "max_position_embeddings": 600}')
    (tmp_path / "text_model").mkdir(exist_ok=True)
    (tmp_path / "text_model" / "config.json").write_text('{"model_type": "qwen2"}')
    (tmp_path / "done" / "checkpoint_tracker.json").write_text('{"last_global_step": 4}')
    (tmp_path / "done" / "attempts" / "001" / "easyr1.yaml").write_text("data: {rollout_batch_size: 16}")
    (tmp_path / "verls" / "latest_checkpointed_iteration.txt").write_text("2")
    for name, text in {
        "mute.jinja": "answer yes or no",
        "image.jinja": "<image> {{ content }}",
        "broken.jinja": "{{ content",
        "list.py": "def main(rows):\n return [{'overall': 1.0} for row in rows]",
        "few.py": "def main(rows):\n return [{'overall': 1.0}]",
        "bare.py": "def main(rows):\n return [{'score': 1.0} for row in rows]",
        "text.py": "def main(rows):\n return [{'overall': 1.0, 'said': 'yes'} for row in rows]",
        "slash.py": "def main(rows):\n return [{'overall': 1.0, 'a/b': 1.0} for row in rows]",
        "raise.py": "def main(rows):\n return [{'overall': 1 / 0} for row in rows]",
        "import.py": "import nothing_of_the_kind",
        "relative.py": "from . import list\ndef main(rows): ...",
        "none_value.py": "def main(rows):\n return [{'overall': 1.0, 'accuracy': None} for row in rows]",
        "numpy_value.py": "import numpy\ndef main(rows):\n return [{'overall': numpy.float32(1)} for row in rows]",
        "nan.py": "def main(rows):\n return [{'overall': float('nan')} for row in rows]",
        "inverted.py": "def main(rows):\n return [{'overall': float('> yes <' in row['response'])} for row in rows]",
        "one_line.py": (
            "import re\ndef score(text):\n return float(bool(re.search('<answer> (yes|no) </answer>', text)))\n"
            "def main(rows):\n return [{'overall': score(row['response'])} for row in rows]"
        ),
    }.items():
        (tmp_path / name).write_text(text)
    return workshop


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name, broken_things, good_words, monkeypatch):
    for variable in ("RAY_ADDRESS", "WANDB_API_KEY", "WANDB_MODE", "SWANLAB_API_KEY", "SWANLAB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", "/no/such")
    words, where, says = BROKEN[name]
    home = str(broken_things)
    changed = {word.partition("=")[0] for word in words}
    kept = [word for word in good_words if word.partition("=")[0] not in changed]  # dicts would be merged
    lines = findings([*kept, *[word.replace("~", home) for word in words]])
    about = [line for line in lines if line.startswith(where.replace("~", home))]
    assert about, lines
    assert any(says in line for line in about), about


@pytest.mark.parametrize(
    "word",
    [
        "worker.actor.fsdp.fsdp_size=2",  # as many shards as GPUs, or more, is what is done without the key
        "worker.actor.fsdp.torch_dtype=bfloat16",
        "worker.rollout.top_k=-1",
        "data.val_batch_size=-1",
        "worker.actor.micro_batch_size_per_device_for_experience=32",
    ],
)
def test_what_is_allowed_gives_no_alarm(word, good_words):
    assert alarms([*good_words, word]) == []


def test_verl_rounds_the_rank_of_lora_up(good_words):
    words = [*good_words, "worker.actor.model.lora.rank=12", "worker.actor.model.lora.exclude_modules=.*visual.*"]
    for trainer, count in {"verl": 0, "easyr1": 1}.items():
        assert len(alarms(words, trainer=Trainer(trainer, "", Path()))) == count


def test_every_category_is_looked_at_wherever_it_stands(tmp_path, good_words):
    # Row groups of two pairs; the long category is neither in the first, nor in the middle, nor in the last.
    rows = [pair(index).to_row() for index in range(40)]
    rows[13] = {**pair(13, size=(800, 800)).to_row(), "category": "long_one"}
    table = pa.Table.from_pylist(rows, schema=pair_schema())
    pq.write_table(table, tmp_path / "grouped.parquet", row_group_size=2)
    (line,) = alarms([*good_words, f"data.train_files={tmp_path}/grouped.parquet"])
    assert line.startswith("warning: data.max_prompt_length: found 512: 1 of ")
    assert "sampled prompts of data.train_files are longer (tokens: long_one 1" in line


def test_feature_types_of_a_later_datasets_are_found(tmp_path, good_words, monkeypatch):
    features = {"info": {"features": {"images": {"_type": "List", "feature": {"_type": "Value"}}}}}
    table = pa.Table.from_pylist([pair(index).to_row() for index in range(40)], schema=pair_schema())
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "list.parquet")
    words = [*good_words, f"data.train_files={tmp_path}/list.parquet"]
    for installed, count in {"3.6.0": 1, "4.0.0": 0}.items():
        monkeypatch.setattr(data_checks, "version", lambda _, installed=installed: installed)
        lines = alarms(words)
        assert len(lines) == count
        assert not count or "and datasets 3.6.0 installed" in lines[0]


def test_verl_needs_columns_that_easyr1_does_not(workshop, good_words):
    table = pq.read_table(workshop / "train.parquet")
    pq.write_table(table.drop_columns(["reward_model"]), workshop / "easyr1_only.parquet")
    words = [*good_words, f"data.train_files={workshop}/easyr1_only.parquet"]
    config = load_config(words, KEYS)
    for name, count in {"verl": 1, "easyr1": 0}.items():
        known = Known(config=config, trainer=Trainer(name, "", Path()), keys=KEYS, gpu=False)
        assert len(list(check_verl_columns(known))) == count


def test_bare_gold_answers_are_no_fault(workshop, good_words):
    table = pq.read_table(workshop / "train.parquet").select(["problem", "images", "answer"])
    answers = pa.array(["yes" if index % 2 else "no" for index in range(len(table))])
    pq.write_table(table.set_column(2, "answer", answers), workshop / "bare.parquet")
    assert alarms([*good_words, f"data.train_files={workshop}/bare.parquet"]) == []


def test_without_a_trainer_the_machine_checks_say_so(good_words):
    config = load_config(good_words, KEYS)
    known = Known(config=config, trainer=None, keys=KEYS, gpu=False)
    lines = [str(found) for check in CHECKS for found in check(known)]
    assert [line for line in lines if "neither EasyR1 nor verl installed" in line]


#: Releases with which EasyR1 at REQUIRED_EASYR1 works.
FIT = {
    "omegaconf": "2.3.0",
    "transformers": "4.57.1",
    "vllm": "0.11.0",
    "flash-attn": "2.8.3",
    "einops": "0.8.1",
    "msgspec": "0.19.0",
    "qwen-vl-utils": "0.0.14",
    "torch": "2.8.0",
}


@pytest.mark.parametrize(
    ("name", "release", "says"),
    [
        ("omegaconf", "2.4.0.dev3", "error: omegaconf: found 2.4.0.dev3, expected omegaconf<2.4. Run: pip install"),
        (
            "transformers",
            "5.5.4",
            "error: transformers: found 5.5.4, expected transformers<5,>=4.54. Run: pip install",
        ),
        ("transformers", "4.52.0", "error: transformers: found 4.52.0"),
        ("vllm", "0.7.3", "error: vllm: found 0.7.3, expected vllm>=0.8"),
        ("flash-attn", None, "error: flash-attn: found it not installed, expected flash-attn. Run: pip install"),
        ("einops", None, "error: einops: found it not installed"),
        ("msgspec", None, "error: msgspec: found it not installed"),
        ("torch", "2.8.0", ""),
    ],
)
def test_easyr1_needs_what_it_does_not_declare(name, release, says, good_words, monkeypatch):
    releases = {**FIT, name: release}

    def version(package):
        if releases[package] is None:
            raise PackageNotFoundError(package)
        return releases[package]

    monkeypatch.setattr(machine, "version", version)
    trainer = Trainer("easyr1", "0.3.3.dev0", Path())
    known = Known(config=load_config(good_words, KEYS), trainer=trainer, keys=KEYS, gpu=True)
    lines = [str(found) for found in machine.check_packages(known)]
    assert [line.startswith(says) for line in lines] == ([True] if says else [])


def test_the_check_imports_neither_torch_nor_ray_nor_transformers(good_words):
    code = (
        "import sys; from lad_reasoner.commands.easyr1 import main\n"
        "try: main(['check', *sys.argv[1:]])\n"
        "except SystemExit: print(sorted({'torch', 'ray', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code, *good_words], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith("[]"), run.stdout + run.stderr


def test_a_parquet_of_plain_paths_is_read_from_the_image_folder(tmp_path, good_words):
    rows = [pair(index).to_row() for index in range(40)]
    for row in rows:
        for image in row["images"]:
            (tmp_path / image["path"]).write_bytes(image["bytes"])
        row["images"] = [image["path"] for image in row["images"]]
    pq.write_table(pa.Table.from_pylist(rows, schema=path_schema()), tmp_path / "paths.parquet")
    words = [*good_words, f"data.train_files={tmp_path}/paths.parquet"]
    assert alarms([*words, f"data.image_dir={tmp_path}"]) == []
    (line,) = alarms(words)
    assert line.startswith("error: data.train_files: found in ")
    assert "image 1 of a pair" in line


def test_what_verl_cannot_do_is_found_before_it_starts(good_words):
    words = [*good_words, "algorithm.online_filtering=true"]
    (line,) = alarms(words, trainer=Trainer("verl", "0.9.1", Path()))
    assert line.startswith("error: algorithm.online_filtering: verl has no counterpart to True")
    assert alarms(words, trainer=Trainer("easyr1", "", Path())) == []


@pytest.mark.parametrize("word", ["worker.reward.reward_function=null", "algorithm.adv_estimator=gpro"])
def test_what_no_trainer_takes_is_said_once(word, good_words):
    key = word.partition("=")[0]
    lines = alarms([*good_words, word], trainer=Trainer("verl", "0.9.1", Path()))
    assert [line.startswith(f"error: {key}: ") for line in lines] == [True]


def test_verl_reads_structs_without_bytes(broken_things, good_words):
    config = load_config([*good_words, f"data.train_files={broken_things}/hollow.parquet"], KEYS)
    known = Known(config=config, trainer=Trainer("verl", "", Path()), keys=KEYS, gpu=False)
    assert not list(check_image_storage(known))


PROFILES = sorted(Path(__file__).resolve().parents[2].glob("examples/grpo/qwen*"))
#: Sizes of MVTec LOCO AD and MVTec AD, in pixels.
SIZES = ((1600, 1280), (800, 1600), (1700, 1000), (1600, 1100), (1700, 850), (1024, 1024))


@pytest.fixture(scope="session")
def paper_data(tmp_path_factory):
    """Training and validation files with as many pairs as the paper's, of images as large."""
    folder = tmp_path_factory.mktemp("paper")
    pairs = [pair(index, size=size) for index, size in enumerate(SIZES)]
    images = [[{"bytes": image.data, "path": image.path} for image in (*one.references, one.query)] for one in pairs]
    for name, count, dataset in (("grpo", 984, "mvtec_ad"), ("loco", 1136, "mvtec_loco")):
        rows = [
            {**pair(index, size=(8, 8), dataset=dataset).to_row(), "images": images[index % len(images)]}
            for index in range(count)
        ]
        table = pa.Table.from_pylist(rows, schema=pair_schema())
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=100)
    return folder


def profile_words(path, data, *more):
    files = [f"data.train_files={data}/grpo.parquet", f"data.val_files={data}/loco.parquet"]
    return [f"config={path}", *files, f"trainer.save_checkpoint_path={data}/run", *more]


@pytest.mark.parametrize("trainer", ["easyr1", "verl"])
@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_no_false_alarm_on_a_shipped_profile(path, trainer, paper_data, monkeypatch, repository):
    monkeypatch.chdir(repository)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    merged = ["worker.actor.model.model_path=Qwen/Qwen2.5-VL-3B-Instruct"] if "sft" in path.stem else []
    assert alarms(profile_words(path, paper_data, *merged), trainer=Trainer(trainer, "", Path()), gpu=True) == []


def test_no_false_alarm_on_the_demonstrations_config(workshop, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    files = [
        f"data.train_files={write_pairs(tmp_path / 'train.parquet', 320)}",
        f"data.val_files={workshop}/val.parquet",
    ]
    model = f"worker.actor.model.model_path={workshop}/model"
    words = ["config=examples/demo/grpo.yaml", *files, model, f"trainer.save_checkpoint_path={workshop}/run"]
    assert alarms(words, trainer=Trainer("verl", "", Path())) == []


#: GPU memory that a profile's name or header promises to be enough, in GiB.
PROMISED = {"24gb": 24, "48gb": 40, "40gb": 40, "80gb": 80, "": 80}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_fits_the_gpus_that_it_names(path, paper_data, monkeypatch, repository):
    monkeypatch.chdir(repository)
    size = next(size for name, size in PROMISED.items() if name in path.stem)
    monkeypatch.setattr(machine, "gpu_memory", lambda: size * 2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=256 * 2**30))
    config = load_config(profile_words(path, paper_data), KEYS)
    known = Known(config=config, trainer=None, keys=KEYS, gpu=True)
    (said,) = machine.check_memory(known)
    assert said.severity == "note"
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    update = re.search(r"an update takes about ([\d.]+) GiB", header)
    assert update, "the header does not say what an update takes"
    assert f"an update takes about {update[1]} GiB per GPU" in str(said)


def test_every_profile_is_listed_and_has_a_whole_header(repository):
    table = (repository / "examples" / "grpo" / "README.md").read_text(encoding="utf-8")
    for path in PROFILES:
        header = path.read_text(encoding="utf-8").split("\n\n")[0]
        assert f"| `{path.name}` |" in table
        if path.suffix == ".sh":
            assert len(path.read_text(encoding="utf-8").splitlines()) < 35, "a profile states what differs"
            assert os.access(path, os.X_OK)
        for word in (
            "Needs:",
            "Hardware:",
            "Memory:",
            "Time:",
            "(estimated)",
            f"easyr1 config=examples/grpo/{path.name}",
        ):
            assert word in header, f"{path.name} lacks {word}"


MEMORY = [
    (
        ["worker.actor.model.model_path=x/Qwen2.5-VL-7B"],
        80,
        "warning: worker.actor.model.model_path: found GPUs of 80.0 GiB",
    ),
    (["worker.actor.model.model_path=x/Qwen2.5-VL-3B"], 80, "at most 0.39, what the trained model leaves of 80.0 GiB"),
    (
        ["worker.actor.model.model_path=x/Qwen2.5-VL-7B", "worker.rollout.gpu_memory_utilization=0.1"],
        141,
        "more than 15.4 GiB, the weights of the rollout engine",
    ),
    (
        ["worker.actor.model.model_path=x/Qwen2.5-VL-7B", "worker.actor.fsdp.enable_cpu_offload=true"],
        80,
        "found 64.0 GiB of memory, expected about 139.0 GiB",
    ),
]


@pytest.mark.parametrize(("words", "gpu", "says"), MEMORY)
def test_a_run_that_does_not_fit_is_found(words, gpu, says, good_words, monkeypatch):
    monkeypatch.setattr(machine, "gpu_memory", lambda: gpu * 2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=64 * 2**30))
    known = Known(config=load_config([*good_words, *words], KEYS), trainer=None, keys=KEYS, gpu=True)
    assert any(says in str(found) for found in machine.check_memory(known)), list(machine.check_memory(known))


#: Prompt, response, rows of a micro batch, and GiB beside weights, gradients and moments on an H200, with PyTorch's
#: FSDP and bf16 (tests/bench/gpu.py): Qwen2.5-VL-3B, two images of 401,408 pixels.
TAKEN = [
    (1280, 1024, 1, 4.68),
    (1280, 1024, 2, 9.30),
    (1280, 128, 1, 3.02),
    (1280, 128, 2, 5.98),
    (1280, 2816, 1, 8.0),
]


@pytest.mark.parametrize(("prompt", "response", "rows", "taken"), TAKEN)
def test_activations_are_estimated_within_15_percent_of_what_a_gpu_took(prompt, response, rows, taken, good_words):
    words = [
        "worker.actor.model.model_path=Qwen/Qwen2.5-VL-3B-Instruct",
        f"data.max_prompt_length={prompt}",
        f"data.max_response_length={response}",
        f"worker.actor.micro_batch_size_per_device_for_update={rows}",
    ]
    config = load_config([*good_words, *words], KEYS)
    memory = training_memory(Known(config=config, trainer=None, keys=KEYS, gpu=True))
    assert memory is not None
    assert memory.update["activations"] / 2**30 == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize(
    ("gpu", "here", "asked", "says"),
    [
        (True, 2, 4, "error: trainer.n_gpus_per_node: found 4, expected at most 2"),
        (True, 4, 4, ""),
        (False, 0, 4, "warning: trainer.n_gpus_per_node: found 4 and no GPU here. Verl would run 4 ranks on the CPU"),
        (False, 0, 1, ""),
    ],
)
def test_gpus_are_counted(gpu, here, asked, says, *, good_words, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(machine, "gpu_count", lambda: here)
    config = load_config([*good_words, f"trainer.n_gpus_per_node={asked}"], KEYS)
    lines = [str(found) for found in machine.check_gpus(Known(config=config, trainer=None, keys=KEYS, gpu=gpu))]
    assert [line.startswith(says) for line in lines] == ([True] if says else [])


def test_a_disk_too_small_for_the_checkpoints_is_found(good_words, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100 * 2**30))
    model = "worker.actor.model.model_path=x/Qwen2.5-VL-3B"
    words = [*good_words, model, "trainer.save_freq=1", "trainer.save_limit=2"]
    for more, count in (([], 1), (["trainer.save_model_only=true"], 0)):
        known = Known(config=load_config([*words, *more], KEYS), trainer=None, keys=KEYS, gpu=False)
        lines = [str(found) for found in check_disk(known)]
        assert len(lines) == count
        assert not count or "100.0 GiB free on the disk, expected about 125.7 GiB for 3 checkpoints" in lines[0]


def test_a_model_that_cannot_be_fetched_is_found(good_words, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    words = [*good_words, "worker.actor.model.model_path=owner/model"]
    (line,) = alarms(words)
    assert line.startswith("error: worker.actor.model.model_path: found owner/model, which ")
    (tmp_path / "models--owner--model").mkdir()
    assert alarms(words) == []


def test_too_few_cpus_for_easyr1_are_found(good_words, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    known = Known(config=load_config(good_words, KEYS), trainer=Trainer("easyr1", "", Path()), keys=KEYS, gpu=True)
    (found,) = machine.check_cpus(known)
    assert "3 CPUs here, expected at least 4" in str(found)


def test_qwen3_vl_needs_later_releases(good_words, monkeypatch):
    monkeypatch.setattr(machine, "version", {"transformers": "4.56.0", "vllm": "0.10.0"}.get)
    monkeypatch.setattr(machine, "EASYR1_NEEDS", ())
    words = [*good_words, "worker.actor.model.model_path=Qwen/Qwen3-VL-4B-Instruct"]
    known = Known(config=load_config(words, KEYS), trainer=Trainer("easyr1", "", Path()), keys=KEYS, gpu=True)
    assert [found.where for found in machine.check_packages(known)] == ["transformers", "vllm"]


def test_what_is_no_fault_is_a_note(good_words):
    def said(*words: str) -> list[str]:
        quiet = ("algorithm.use_kl_loss", "images of")
        return [line for line in findings(list(words)) if not any(part in line for part in quiet)]

    kept = [word for word in good_words if not word.startswith("trainer.max_steps")]
    assert said(*kept, "trainer.total_epochs=3") == [
        "note: trainer.total_epochs: 40 pairs at 8 a step are 5 steps an epoch; 3 epochs are 15 steps"
    ]
    dozens = ["data.rollout_batch_size=12", "worker.actor.global_batch_size=12"]
    epochs = "40 pairs at 12 a step are 3 steps an epoch, 4 pairs left over each time; 4 steps are 1.3 epochs"
    assert said(*good_words, *dozens) == [f"note: trainer.max_steps: {epochs}"]
    (line,) = said(*good_words, "data.train_files=owner/data")
    assert line == "note: data.train_files: owner/data was not looked into: only a parquet file on this machine is"


@pytest.mark.parametrize("trainer", ["easyr1", "verl"])
def test_text_only_data_is_no_fault_unless_its_prompts_have_markers(trainer, tmp_path, good_words):
    columns = {"answer": ["yes", "no"] * 20, "reward_model": [{"ground_truth": "yes"}] * 40, "data_source": ["x"] * 40}
    words = [*good_words, f"data.train_files={tmp_path}/t.parquet"]
    for problem, where in {"a": [], "<image> a": ["error: data.image_key"]}.items():
        pq.write_table(pa.table({"problem": [problem] * 40, **columns}), tmp_path / "t.parquet")
        lines = alarms(words, trainer=Trainer(trainer, "", Path()))
        assert [": ".join(line.split(": ")[:2]) for line in lines] == where


@pytest.mark.parametrize(
    "words",
    [
        ["worker.rollout.limit_images=0"],
        ["data.train_files=owner/data.v2", "worker.actor.model.model_path=owner/model-2.5.1"],
        ["data.train_files=owner/data@train"],
        ["trainer.val_only=true", "trainer.val_before_train=true", "worker.rollout.temperature=0"],
        ["worker.reward.reward_function=~/bools.py"],
        ["worker.reward.reward_function=~/float64.py"],
        ["data.train_files=owner/math", "worker.reward.reward_function=~/math.py"],
    ],
    ids=lambda words: words[-1],
)
def test_easyr1s_own_ways_of_working_give_no_alarm(words, tmp_path, good_words):
    scores = {
        "bools": "{'overall': float('yes' in r['response'].split()), 'said': 'yes' in r['response']}",
        "float64": "{'overall': numpy.float64('yes' in r['response'].split())}",
        "math": "{'overall': float(r['response'] == r['ground_truth'])}",
    }
    for name, score in scores.items():
        (tmp_path / f"{name}.py").write_text(f"import numpy\ndef main(rows):\n return [{score} for r in rows]")
    lines = alarms([*good_words, *[word.replace("~", str(tmp_path)) for word in words]], trainer=EASYR1)
    assert [line for line in lines if "the right answer" not in line] == []


def test_easyr1_without_a_gpu_is_an_error_of_the_check(good_words, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(machine, "gpu_count", lambda: 0)
    for gpu, count in {False: 1, True: 0}.items():
        monkeypatch.setattr(machine, "gpu_count", lambda gpu=gpu: int(gpu))
        known = Known(config=load_config(good_words, KEYS), trainer=EASYR1, keys=KEYS, gpu=gpu)
        assert ["EasyR1 needs a GPU" in str(found) for found in machine.check_gpus(known)] == [True] * count


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys\nsys.exit(0)", "it ended Python with exit code 0"),
        ("import os\nos._exit(3)", "it ended Python with exit code 3"),
        ("def main(rows):\n raise SystemExit", "it ended Python with exit code 0"),
        ("while True: pass", "within 2 s"),
        ("def main(rows):\n while True: pass", "within 2 s"),
        ("import time\ntime.sleep(60)", "within 2 s"),
    ],
)
def test_a_reward_that_exits_or_never_returns_is_a_finding(code, says, tmp_path, good_words, monkeypatch):
    if "within" in says:
        monkeypatch.setattr("lad_reasoner.training.preflight.reward_probe.TIME_LIMIT", 2)
    (tmp_path / "reward.py").write_text(code)
    (line,) = alarms([*good_words, f"worker.reward.reward_function={tmp_path}/reward.py"])
    assert line.startswith("error: worker.reward.reward_function: it ")
    assert says in line


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


def test_every_row_is_read_where_no_prompt_is_filtered(tmp_path, good_words):
    rows = [pair(index).to_row() for index in range(300)]
    rows[177] = pair(177, size=(1960, 1960)).to_row()
    table = pa.Table.from_pylist([{**row, "category": "gear"} for row in rows], schema=pair_schema())
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    words = [*good_words, f"data.train_files={tmp_path}/t.parquet", "data.max_pixels=4194304"]
    assert "note: data.train_files: the images of 63 of 300 rows were read" in "\n".join(findings(words))
    lines = findings([*words, "data.filter_overlong_prompts=false"])
    assert any("error: data.max_prompt_length: found 512: 1 of 300" in line for line in lines), lines
    assert "note: data.train_files: the images of all 300 rows were read" in lines


def test_an_image_too_long_for_the_processor_is_found(tmp_path, good_words):
    write_rows(tmp_path / "t.parquet", [pair(0, size=(4020, 20)).to_row(), *(pair(i).to_row() for i in range(1, 40))])
    lines = alarms([*good_words, f"data.train_files={tmp_path}/t.parquet"])
    assert any("2 images of" in line and "over 200 times as long as wide, such as 4020 x 20" in line for line in lines)


@pytest.mark.parametrize("modules", ["all-linear", "q_proj,gate_proj", "down_proj", "qkv", "linear_fc1"])
def test_lora_that_reaches_the_vision_tower_is_found(modules, good_words):
    words = [*good_words, "worker.actor.model.lora.rank=8", f"worker.actor.model.lora.target_modules='{modules}'"]
    (line,) = alarms(words)
    assert line.startswith("warning: worker.actor.model.lora.exclude_modules: null, and the vision tower")
    assert alarms([*words, "worker.actor.model.lora.exclude_modules=.*visual.*"]) == []
    assert alarms([*words, "worker.actor.model.lora.target_modules='q_proj,v_proj'"]) == []


@pytest.mark.parametrize(("yes", "warns"), [(27, True), (26, False), (14, False), (13, True)])
def test_a_constant_answer_that_pays_is_found(yes, warns, tmp_path, good_words):
    rows = [{**pair(i).to_row(), "answer": json.dumps({"label": "yes" if i < yes else "no"})} for i in range(40)]
    write_rows(tmp_path / "t.parquet", rows)
    lines = alarms([*good_words, f"data.train_files={tmp_path}/t.parquet"])
    assert [("always answering" in line and "of the accuracy reward" in line) for line in lines] == [True] * warns


def test_kl_in_the_reward_is_noted_with_grpo_alone(good_words):
    def noted(*words: str) -> bool:
        return any("a full-strength advantage" in line for line in findings([*good_words, *words]))

    assert noted()
    for word in ("algorithm.use_kl_loss=true", "algorithm.disable_kl=true", "algorithm.adv_estimator=rloo"):
        assert not noted(word)


def test_verls_gspo_without_dual_clip_is_noted(good_words):
    words = [*good_words, "worker.actor.loss_type=gspo"]
    for trainer, count in {"verl": 1, "easyr1": 0}.items():
        lines = findings(words, trainer=Trainer(trainer, "", Path()))
        assert sum("verl's gspo does not clip at 3" in line for line in lines) == count


def test_a_model_that_transformers_4_would_misread_is_found_for_easyr1(good_words, tmp_path):
    folder = Path(shutil.copytree(BASE, tmp_path / "model"))
    config = load_config([*good_words, f"worker.actor.model.model_path={folder}"], KEYS)

    def said(trainer: str) -> list[str]:
        known = Known(config=config, trainer=Trainer(trainer, "1", Path()), keys=KEYS, gpu=True)
        return [str(found) for found in check_handover(known)]

    (line,) = said("easyr1")
    assert line.startswith("warning: worker.actor.model.model_path: transformers 4 misreads ")
    assert line.endswith(f"Run `lad check {folder} --fix`.")
    assert said("verl") == []
    mend(folder)
    assert said("easyr1") == []
