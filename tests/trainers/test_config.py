"""EasyR1's grammar: files over defaults, words over files, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lad_datasets.recipes.recipe import read_recipe
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.yaml_keys import refuse_repeated_keys
from lad_reasoner.training.easyr1.config import load_config, resolve_path
from lad_reasoner.training.easyr1.keys import nearest_key, read_snapshot
from lad_reasoner.training.preflight.sft_config import check_sft


def test_words_lie_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("trainer: {max_steps: 5, project_name: file}\nworker: {rollout: {n: 3}}\n")
    config = load_config([f"config={file}", "trainer.max_steps=7"])
    assert config["trainer.max_steps"] == 7
    assert config["trainer.project_name"] == "file"
    assert config["worker.rollout.n"] == 3
    assert config["trainer.total_epochs"] == 15
    assert config.given == {"trainer.max_steps", "trainer.project_name", "worker.rollout.n"}


def test_free_dicts_take_any_key_from_file_and_words(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("worker: {rollout: {val_override_config: {n: 1}}}")
    config = load_config([f"config={file}", "worker.rollout.val_override_config.temperature=0.5"])
    assert config["worker.rollout.val_override_config"] == {"n": 1, "temperature": 0.5}


def test_null_and_interpolation_are_omegaconfs():
    config = load_config(["data.max_pixels=null", "data.rollout_batch_size=${worker.actor.global_batch_size}"])
    assert config["data.max_pixels"] is None
    assert config["data.rollout_batch_size"] == 256


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("trainer.max_step=3", ["trainer.max_step", "EasyR1 has no such key", "did you mean trainer.max_steps?"]),
        ("lr=1e-6", ["lr", "did you mean worker.actor.optim.lr?"]),
        ("rollout.n=8", ["did you mean worker.rollout.n?"]),
        ("algorithm.kl_ctrl.kl_coef=1", ["did you mean algorithm.kl_coef?"]),
        ("worker.actor.kl_coef=1", ["EasyR1 computes this key itself", "remove it"]),
        ("trainer=3", ["group of keys", "trainer.total_epochs"]),
        ("data=null", ["group of keys", "data.train_files"]),
        ("trainer.max_steps=abc", ["trainer.max_steps", "'abc'", "Optional[int]"]),
        ("data.max_pixels=1.5", ["data.max_pixels", "Optional[int]"]),
        ("worker.actor.optim.lr=high", ["worker.actor.optim.lr", "float"]),
        ("data.shuffle=maybe", ["data.shuffle", "bool"]),
        ("trainer.logger=console", ["trainer.logger", "Tuple[str]"]),
        ("trainer.max_steps=${data.foo}", ["data.foo"]),
        ("nonsense", ["nonsense", "key=value"]),
        ("--config=x", ["--config=x", "key=value"]),
    ],
)
def test_a_wrong_word_is_one_line_that_names_it(word, parts):
    with pytest.raises(UsageError) as raised:
        load_config([word])
    assert "\n" not in str(raised.value)
    for part in parts:
        assert part in str(raised.value)


def test_every_unknown_key_is_named_at_once(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("worker: {rollout: {m: 3}}")
    with pytest.raises(UsageError) as raised:
        load_config([f"config={file}", "trainer.max_step=1", "data=null"])
    for part in ("worker.rollout.m", "trainer.max_step:", "did you mean trainer.max_steps?", "data: this is a group"):
        assert part in str(raised.value)


def test_an_unknown_key_in_the_file_is_found_too(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("worker: {rollout: {m: 3}}")
    with pytest.raises(UsageError, match=r"worker\.rollout\.m: EasyR1 has no such key"):
        load_config([f"config={file}"])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a: [1", "not YAML"),
        ("- 1\n- 2\n", "not an EasyR1 config"),
        ("\x00", "not YAML"),
        ("data: !!timestamp x", "not YAML"),
        ("data:\n\ttrain_files: a\n", "not YAML: found character .* that cannot start any token, line 2"),
        ("data: [a\n", "not YAML: expected ',' or ']'.*, line 2"),
        ("data: !!int x", "not YAML"),
        ("data: !!float x", "not YAML"),
        ("data: !!bool x", "not YAML"),
        ("data: !!binary x", "not YAML"),
        ("data: !!python/object:os.system x", "not YAML"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, content, found):
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(DataError, match=found):
        load_config([f"config={file}"])


def test_a_missing_file():
    with pytest.raises(UsageError, match="no such file"):
        load_config(["config=/nowhere/c.yaml"])
    with pytest.raises(UsageError, match="no such file"):
        load_config(["config=", "trainer.max_steps=7"])


def test_paths_become_absolute_and_the_package_is_found_without_a_checkout(tmp_path, monkeypatch):
    (tmp_path / "data.parquet").touch()
    monkeypatch.chdir(tmp_path)
    reward = "plugin/lad_reasoner/training/easyr1/reward.py:compute_score"
    config = load_config(
        ["data.train_files=data.parquet@train", "data.val_files=owner/name", f"worker.reward.reward_function={reward}"]
    )
    assert config["data.train_files"] == f"{tmp_path}/data.parquet@train"
    assert config["data.val_files"] == "owner/name"
    path, function = config["worker.reward.reward_function"].rsplit(":", 1)
    assert Path(path).is_file()
    assert function == "compute_score"
    assert config.run_dir == tmp_path / "checkpoints" / "easy_r1" / "demo"


def test_a_file_of_ones_own_wins_over_the_packages(tmp_path, monkeypatch):
    own = tmp_path / "plugin" / "lad_reasoner" / "task" / "prompts" / "rlad.jinja"
    own.parent.mkdir(parents=True)
    own.write_text("{{ content }}")
    monkeypatch.chdir(tmp_path)
    assert resolve_path("plugin/lad_reasoner/task/prompts/rlad.jinja") == own


def test_the_tree_nests_every_value_again():
    config = load_config(["worker.rollout.n=5"])
    assert config.as_tree()["worker"]["rollout"]["n"] == 5
    assert config.replace(trainer__max_steps=9)["trainer.max_steps"] == 9


def test_no_suggestion_for_something_else_altogether():
    assert nearest_key("zzzzzzzz", read_snapshot()) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5", "not an EasyR1 config"),
        ("&a [*a]", "aliases stand for too many values"),
        ("{a: &a {b: *a}}", "aliases stand for too many values"),
        ("[" * 20_000, "nested too deeply"),
        (
            "\n".join(["b0: &b0 [x, x]", *(f"b{i}: &b{i} [*b{i - 1}, *b{i - 1}]" for i in range(1, 31))]),
            "aliases stand for too many values",
        ),
    ],
    ids=["number", "list in itself", "mapping in itself", "deep", "bomb"],
)
def test_yaml_that_is_made_to_break_is_one_line(tmp_path, text, found):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=found) as caught:
        load_config([f"config={path}"])
    assert "\n" not in str(caught.value)


REPEATED = "model_name_or_path: m\ndata: {train_files: a}\nrows:\n- {a: 1, b: 2,\n   a: 3}\n"


@pytest.mark.parametrize(
    "read",
    [
        lambda path: load_config([f"config={path}"]),
        check_sft,
        lambda path: read_recipe(str(path)),
    ],
    ids=["easyr1", "llamafactory", "recipe"],
)
def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path, read):
    path = tmp_path / "config.yaml"
    path.write_text(REPEATED)
    with pytest.raises(DataError, match=r"config\.yaml: the key a stands in line 4 and again in line 5\. Keep one"):
        read(path)


def test_keys_of_two_types_and_merged_ones_are_no_repetition(tmp_path):
    refuse_repeated_keys(yaml.compose("a: &x {b: 1}\nc: {<<: *x, b: 2}\n1: a\n'1': b\n"), tmp_path)


def test_an_alias_is_followed(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data: {train_files: &file a.parquet, val_files: *file}")
    assert load_config([f"config={path}"])["data.val_files"] == "a.parquet"


BASE = "trainer: {max_steps: 5, project_name: base}\nworker: {rollout: {n: 3}}\n"


def script(folder: Path, *lines: str) -> Path:
    (folder / "base.yaml").write_text(BASE)
    path = folder / "profile.sh"
    path.write_text("#!/bin/bash\n# a profile: with a comment's apostrophe\nset -x\n\n" + " \\\n  ".join(lines) + "\n")
    return path


def test_a_script_of_overrides_is_a_config(tmp_path):
    path = script(
        tmp_path,
        "exec python3 -m verl.trainer.main",
        f"config={tmp_path}/base.yaml",
        "trainer.max_steps=7",
        "worker.actor.model.lora.exclude_modules='.*visual.*'",
        '"$@"',
    )
    config = load_config([f"config={path}", "trainer.project_name=word"])
    assert (config["trainer.max_steps"], config["worker.rollout.n"], config["trainer.project_name"]) == (7, 3, "word")
    assert config["worker.actor.model.lora.exclude_modules"] == ".*visual.*"
    assert config.source == path


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["python -m other.main", "config=base.yaml"], "does not start python -m verl.trainer.main"),
        (["python -m verl.trainer.main", "trainer.max_steps=7"], "must name a YAML"),
        (["python -m verl.trainer.main", "config=a.sh"], "must name a YAML"),
        (["python -m verl.trainer.main", "config=base.yaml", "data.train_files=$DATA"], "without shell variables"),
        (["python -m verl.trainer.main", "config=base.yaml", "--fast"], "--fast is not of the form key=value"),
        (["python -m verl.trainer.main 'config=base.yaml"], "not a shell script"),
    ],
)
def test_a_script_that_is_no_profile_is_one_line(lines, says, tmp_path):
    with pytest.raises(DataError, match=says) as raised:
        load_config([f"config={script(tmp_path, *lines)}"])
    assert "\n" not in str(raised.value)


def test_a_script_is_never_run(tmp_path):
    path = script(tmp_path, "python -m verl.trainer.main", f"config={tmp_path}/base.yaml")
    path.write_text(f"touch {tmp_path}/ran\n" + path.read_text())
    load_config([f"config={path}"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["qwen2_5_vl_3b_loco.yaml", "qwen2_5_vl_7b_2x8.sh"])
def test_an_example_is_found_without_a_checkout(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config([f"config=examples/grpo/{name}"])["data.rollout_batch_size"] == 64


def test_a_wheel_holds_the_examples(tmp_path, monkeypatch):
    (tmp_path / "lad_reasoner" / "examples" / "grpo").mkdir(parents=True)
    (tmp_path / "lad_reasoner" / "examples" / "grpo" / "own.yaml").write_text(BASE)
    monkeypatch.setattr("lad_reasoner.training.easyr1.config.files", lambda _: tmp_path / "lad_reasoner")
    monkeypatch.chdir(tmp_path)
    assert load_config(["config=examples/grpo/own.yaml"])["trainer.max_steps"] == 5
