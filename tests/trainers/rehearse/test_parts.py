"""Rows, models and trainers of a rehearsal, and what it says when one of them is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.trainers.conftest import write_pairs

from lad_reasoner.commands.findings import refuse_errors
from lad_reasoner.pairs.reader import read_truths
from lad_reasoner.support.errors import DataError, RunError, UsageError
from lad_reasoner.support.files import locked
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.installed import Trainer
from lad_rehearsal.rehearse import rehearsal
from lad_rehearsal.rehearse.data import require_parquet, take_rows
from lad_rehearsal.rehearse.model import ModelSource, find_source
from lad_rehearsal.rehearse.plan import scale_down
from lad_rehearsal.rehearse.rehearsal import check_config
from lad_rehearsal.rehearse.report import list_gaps
from lad_rehearsal.rehearse.run import explain_failure
from lad_rehearsal.rehearse.runtime import RehearsalRuntime, find_runtime, unmet_requirements
from lad_rehearsal.rehearse.synthetic import make_pairs

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("total", "count", "places"), [(100, 4, [12, 37, 62, 87]), (3, 8, [0, 1, 2]), (1, 1, [0])])
def test_rows_are_spread_over_the_file(tmp_path, total, count, places):
    schema = pa.schema([("row", pa.int64())], metadata={"kept": "yes"})
    pq.write_table(pa.table({"row": range(total)}, schema=schema), tmp_path / "all.parquet", row_group_size=7)
    assert take_rows(tmp_path / "all.parquet", tmp_path / "few.parquet", count=count) == (len(places), total)
    few = pq.read_table(tmp_path / "few.parquet")
    assert few["row"].to_pylist() == places
    assert few.schema.metadata[b"kept"] == b"yes"


def test_a_file_without_rows_and_a_file_that_is_no_parquet(tmp_path):
    pq.write_table(pa.table({"row": pa.array([], pa.int64())}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="has no rows"):
        take_rows(tmp_path / "none.parquet", tmp_path / "few.parquet", count=2)
    (tmp_path / "text.parquet").write_text("not a parquet file, but long enough to have a footer")
    with pytest.raises(DataError, match="not readable parquet"):
        take_rows(tmp_path / "text.parquet", tmp_path / "few.parquet", count=2)


def test_missing_data_says_what_builds_it(tmp_path):
    with pytest.raises(DataError, match=r"data\.val_files: no such file: .*\. Build it \(`lad build loco`\)"):
        require_parquet("data.val_files", f"{tmp_path}/val.parquet@train", build="lad build loco")
    (tmp_path / "val.json").write_text("[]")
    with pytest.raises(DataError, match="is not a parquet file"):
        require_parquet("data.val_files", f"{tmp_path}/val.json", build="lad build loco")


def source(path: object, trainer: str = "verl") -> ModelSource:
    return find_source(load_config([f"worker.actor.model.model_path={path}"]), trainer)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl"),
        ("someone/my-qwen2_5_vl-sft", "qwen2_5_vl"),
        ("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl"),
    ],
)
def test_a_hub_name_that_is_not_here_tells_the_family(name, family, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert source(name) == ModelSource(family, None)


def test_another_architecture_is_replaced_and_said_to_be(tmp_path):
    found = source("OpenGVLab/InternVL3-8B")
    assert (found.family, found.folder) == ("qwen2_5_vl", None)
    assert "InternVL3-8B is of type unknown" in found.replaces
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    assert source(tmp_path, "easyr1") == ModelSource("qwen2_vl", tmp_path)
    assert "of type qwen2_vl; verl can rehearse" in source(tmp_path, "verl").replaces
    gaps = list_gaps(load_config(["worker.actor.model.model_path=a/b"]), source(tmp_path, "verl"), [], rows={})
    assert gaps[0].what == "architecture"


@pytest.mark.parametrize(("content", "says"), [(None, "no config.json"), ("{}", "no model_type"), ("{", "model_type")])
def test_a_folder_that_is_no_model(tmp_path, content, says):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=says):
        source(tmp_path)


def test_a_config_without_a_model():
    with pytest.raises(UsageError, match="model_path: no model is set"):
        find_source(load_config([]), "verl")


def test_a_model_that_is_still_to_be_trained_does_not_stop_a_rehearsal(good_words, capsys):
    config = load_config([*good_words, "worker.actor.model.model_path=runs/sft/qwen2_5_vl_3b"])
    refuse_errors(check_config(config, VERL, steps=2))
    assert find_source(config, "verl") == ModelSource("qwen2_5_vl", None)
    with pytest.raises(UsageError, match="1 error in the config"):
        refuse_errors(check_config(config.replace(trainer__max_steps=0), VERL, steps=2))
    assert "error: trainer.max_steps" in capsys.readouterr().err


VERL = RehearsalRuntime(Trainer("verl", "", Path()), sys.executable)


def test_a_hub_model_that_is_not_cached_does_not_stop_an_offline_rehearsal(good_words, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    config = load_config([*good_words, "worker.actor.model.model_path=Qwen/Qwen2.5-VL-3B-Instruct"])
    refuse_errors(check_config(config, VERL, steps=2))
    assert find_source(config, "verl") == ModelSource("qwen2_5_vl", None)


@pytest.mark.parametrize("length", ["trainer.max_steps=50", "trainer.max_steps=null"])
def test_data_smaller_than_the_batch_does_not_stop_a_rehearsal(good_words, tmp_path, length):
    train = write_pairs(tmp_path / "train.parquet", 5)
    words = [*good_words, f"data.train_files={train}", "data.rollout_batch_size=64", length]
    words += ["worker.actor.global_batch_size=64", "worker.actor.model.model_path=Qwen/Qwen2.5-VL-3B-Instruct"]
    config = load_config(words)
    refuse_errors(check_config(config, VERL, steps=2))
    scaled, _ = scale_down(config, steps=2, paths={})
    assert scaled["data.rollout_batch_size"] <= 5


@pytest.mark.parametrize(
    "line",
    [
        "ray.exceptions.GetTimeoutError: Get timed out: some object(s) not ready.",
        "RuntimeError: The current node timed out during startup.",
        "RuntimeError: can't start new thread",
        "OSError: [Errno 28] No space left on device",
        "torch.OutOfMemoryError: DefaultCPUAllocator: can't allocate memory",
        "MemoryError",
    ],
)
def test_a_failure_of_this_machine_does_not_blame_the_config(tmp_path, line):
    log = tmp_path / "trainer.log"
    log.write_text(f"Traceback (most recent call last):\n{line}\n")
    error = str(explain_failure("rehearsal, verl", 1, log))
    assert "This machine caused the failure, not the config" in error
    assert line.split(":")[0] in error
    assert "GPU run" not in error


@pytest.mark.parametrize("line", ["KeyError: 'problem'", "ValueError: timed out is not a reward"])
def test_any_other_failure_would_happen_on_gpus_too(tmp_path, line):
    log = tmp_path / "trainer.log"
    log.write_text(f"Traceback (most recent call last):\n{line}\n")
    assert str(explain_failure("rehearsal, verl", 1, log)).endswith("would probably fail in the same way.")


def test_a_killed_trainer_is_a_failure_of_this_machine(tmp_path):
    (tmp_path / "trainer.log").write_text("step 1\n")
    error = explain_failure("rehearsal, verl", -9, tmp_path / "trainer.log")
    assert "This machine caused the failure" in str(error)
    assert error.exit_code == 137


def test_what_was_not_covered_follows_from_the_config():
    words = ["trainer.logger=[console,wandb]", "trainer.n_gpus_per_node=4", "worker.actor.model.model_path=a/b"]
    model = ModelSource("qwen2_5_vl", None)
    gaps = {gap.what: gap.why for gap in list_gaps(load_config(words), model, [{"step": 1, "reward": 0.0}], rows={})}
    assert gaps["loggers"].startswith("wandb")
    assert "4" in gaps["several GPUs"]
    assert "every gradient was zero" in gaps["learning"]
    one = [
        *words[:0],
        "trainer.n_gpus_per_node=1",
        "worker.rollout.tensor_parallel_size=1",
        "trainer.logger=[console]",
    ]
    gaps = {gap.what: gap.why for gap in list_gaps(load_config(one), model, [{"step": 1, "reward": 0.5}], rows={})}
    assert {"loggers", "several GPUs"}.isdisjoint(gaps)
    assert "zero" not in gaps["learning"]


def test_easyr1_home_must_be_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("EASYR1_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="is not a checkout of hiyouga/EasyR1"):
        find_runtime()


def test_the_python_of_easyr1_is_asked_for_its_packages(monkeypatch, tmp_path):
    (tmp_path / "verl" / "trainer").mkdir(parents=True)
    (tmp_path / "verl" / "trainer" / "main.py").touch()
    monkeypatch.setenv("EASYR1_HOME", str(tmp_path))
    monkeypatch.setenv("EASYR1_PYTHON", "/no/such/python")
    with pytest.raises(RunError, match="Set EASYR1_PYTHON"):
        find_runtime()
    from packaging.requirements import Requirement

    needs = [Requirement("transformers>=4.54,<5"), Requirement("einops"), Requirement("torch")]
    versions = {"transformers": "5.5.4", "einops": None, "torch": "2.11.0+cpu"}
    unmet = unmet_requirements(needs, versions)
    assert unmet == ["transformers 5.5.4 (needs transformers<5,>=4.54)", "einops not installed (needs einops)"]


def test_a_rehearsal_sees_no_cluster_and_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("EASYR1_HOME", raising=False)
    pytest.importorskip("verl")
    environment = find_runtime().environment(tmp_path)
    assert "RAY_ADDRESS" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1"
    assert environment["RAY_TMPDIR"] == str(tmp_path)


def easyr1(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", *words]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EASYR1_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=kept | environment, cwd=REPOSITORY)


@pytest.mark.slow
def test_mistakes_are_one_line_with_a_remedy(tmp_path, good_words):
    pytest.importorskip("verl")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    example = "config=examples/grpo/qwen2_5_vl_3b_loco.yaml"
    cases = [
        ((example, "--steps", "0"), 2, "Invalid value for '--steps'"),
        ((example, "--as", "trl"), 2, "Invalid value for '--as'"),
        ((example, "--fast"), 2, "No such option: --fast"),
        ((example, "--out", f"{tmp_path}/full"), 2, "does not contain a rehearsal"),
        ((example, "--out", f"{tmp_path}/new", "data.train_files=gone.parquet"), 1, "lad build grpo --mvtec DIR"),
        ((*good_words, "--out", f"{tmp_path}/new", "data.prompt_key=prompt_text"), 2, "data.prompt_key"),
    ]
    for words, code, says in cases:
        run = easyr1("rehearse", *words)
        assert run.returncode == code, run.stderr
        assert says in run.stderr
        assert "Traceback" not in run.stderr
        assert not run.stdout
    assert (tmp_path / "full" / "thesis.txt").exists()
    assert not (tmp_path / "new").exists()  # nothing is emptied for a rehearsal that does not start


def test_easyr1_in_an_environment_that_cannot_run_it_is_refused_at_once(tmp_path):
    (tmp_path / "verl" / "trainer").mkdir(parents=True)
    for name in ("main.py", "config.py"):
        (tmp_path / "verl" / "trainer" / name).touch()
    transformers = pytest.importorskip("transformers")
    if transformers.__version__ < "5":
        pytest.skip("this environment has the transformers that EasyR1 needs")
    run = easyr1("rehearse", "config=examples/grpo/qwen2_5_vl_3b_loco.yaml", EASYR1_HOME=str(tmp_path))
    assert run.returncode == 1
    assert f"transformers {transformers.__version__} (needs transformers" in run.stderr
    assert "Set EASYR1_PYTHON" in run.stderr


@pytest.mark.frameworks
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_tiny_model_keeps_the_tokens_of_the_real_one(tmp_path, family):
    """Only widths and depths change: the tokens of a picture do not."""
    pytest.importorskip("torch")
    from PIL import Image
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from lad_rehearsal.rehearse.tiny_model import make_model

    published = tmp_path / "published"
    make_model("qwen3_vl" if family == "qwen3_vl" else "qwen2_5_vl", published)
    real = AutoConfig.for_model(family)  # the defaults are those of a published model, of billions of parameters
    have = json.loads((published / "config.json").read_text())
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        setattr(real, name, have[name])
    text = real.get_text_config()
    text.vocab_size = have["text_config"]["vocab_size"]
    sections = [24, 20, 20] if family == "qwen3_vl" else [16, 24, 24]  # as published; the defaults have none
    text.rope_parameters = {**text.rope_parameters, "mrope_section": sections}
    real.save_pretrained(published)
    (published / "model.safetensors").write_bytes(b"weights of the real size are not read")
    tiny = tmp_path / "tiny"
    make_model(family, tiny, source=published)
    model, info = AutoModelForImageTextToText.from_pretrained(tiny, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert sum(weight.numel() for weight in model.parameters()) < 2_000_000
    assert (tiny / "tokenizer.json").read_bytes() == (published / "tokenizer.json").read_bytes()
    for name in ("patch_size", "spatial_merge_size", "temporal_patch_size"):
        assert getattr(model.config.vision_config, name) == getattr(real.vision_config, name)
    processor = AutoProcessor.from_pretrained(tiny)
    text = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>yes or no<|im_end|>\n"
    inputs = processor(text=[text], images=[Image.new("RGB", (708, 566))], return_tensors="pt")
    with_image = {"qwen3_vl": 18 * 22}.get(family, 20 * 25)
    assert int((inputs["input_ids"] == real.image_token_id).sum()) == with_image
    assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["classes", "boxes"])
def test_synthetic_pairs_have_the_form_that_the_format_prompt_asks_for(prompt, tmp_path) -> None:
    made = make_pairs(tmp_path / "synthetic", prompt=prompt)
    for path in made.values():
        assert {truth.gold.prompt for truth in read_truths(path)} == {prompt}


def test_there_are_no_synthetic_multiple_choice_questions(tmp_path) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        make_pairs(tmp_path / "synthetic", prompt="letters")


def test_a_second_rehearsal_leaves_the_running_one_alone(tmp_path, good_words, monkeypatch):
    monkeypatch.setattr(rehearsal, "find_runtime", lambda *_, **__: VERL)
    folder = tmp_path / "out"
    folder.mkdir()
    kept = [folder / name for name in (rehearsal.MARKER, "train.parquet")]
    for file in kept:
        file.write_text("in use")
    options = rehearsal.RehearsalOptions(out=folder)
    with locked(folder), pytest.raises(RunError, match=r"another process .* is writing this output"):
        rehearsal.rehearse(good_words, options, judge=None)
    assert sorted(folder.iterdir()) == kept
