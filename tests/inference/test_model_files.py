"""Weights are counted in one way, and a hostile or half-downloaded model folder ends in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lad_reasoner.inference.backends.load import load_backend
from lad_reasoner.inference.protocol import BackendOptions
from lad_reasoner.models.weights import parameter_count, read_header
from lad_reasoner.report.figures import count_model_parameters
from lad_reasoner.support.errors import DataError, LadError


def test_parameters_are_counted_in_local_weights(tmp_path: Path) -> None:
    save_file({"a": np.zeros((3, 4), np.float16), "b": np.zeros(5, np.float32)}, tmp_path / "model.safetensors")
    assert parameter_count(str(tmp_path)) == 17
    assert {name: tensor.dtype for name, tensor in read_header(tmp_path / "model.safetensors").items()} == {
        "a": "F16",
        "b": "F32",
    }


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3.75e9),
        ("Qwen2.5-VL-72B", 73.4e9),
        ("runs/sft/qwen2_5_vl_3b", 3.75e9),
        ("SmolVLM-0.5B", 5e8),
        ("lad-sft", None),
        ("v3Beta", None),
        ("APRIL-GAN (score > 0.5)", None),
    ],
)
def test_sizes_are_read_from_names(name: str, count: float | None) -> None:
    assert parameter_count(name) == count


@pytest.mark.parametrize("content", [b"broken", b"", b"\xff" * 64, b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_broken_weight_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.safetensors: (broken|a Git LFS pointer)"):
        parameter_count(str(tmp_path))
    assert count_model_parameters(str(tmp_path)) is None  # the report leaves the model out of figure 6, with a warning


def test_every_reader_gives_the_same_count(tiny_model: Path) -> None:
    """The report, the cost estimate and `lad check` have one count."""
    from lad_datasets.checks.check import CheckOptions, check_file

    count = parameter_count(str(tiny_model))
    assert count is not None
    assert count_model_parameters(str(tiny_model)) == count
    assert check_file(tiny_model, CheckOptions()).facts["parameters"] == count


Break = Callable[[Path], object]


def _edit(name: str, **values: object) -> Break:
    def apply(folder: Path) -> None:
        tree = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**tree, **values}))

    return apply


def _code(folder: Path) -> None:
    (folder / "configuration_evil.py").write_text("raise SystemExit('code of a model folder was run')\n")
    _edit("config.json", model_type="evil", auto_map={"AutoConfig": "configuration_evil.EvilConfig"})(folder)


def _code_of_the_processor(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('code of a model folder was run')\n")
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _edit(name, auto_map={"AutoProcessor": "evil.P", "AutoTokenizer": ["evil.T", "evil.T"]})(folder)
            _edit(name, processor_class="EvilProcessor", tokenizer_class="EvilTokenizer")(folder)


#: What is done to a folder that loads.
HOSTILE: dict[str, Break] = {
    "unknown type with code": _code,
    "a config that is cut": lambda m: (m / "config.json").write_bytes((m / "config.json").read_bytes()[:40]),
    "a config of another kind": lambda m: (m / "config.json").write_text("[1, 2]"),
    "a deep config": lambda m: (m / "config.json").write_text("[" * 200_000),
    "a config that is not text": lambda m: (m / "config.json").write_bytes(b"\xff\xfe\x00"),
    "no config": lambda m: (m / "config.json").unlink(),
    "weights that are no weights": lambda m: (m / "model.safetensors").write_bytes(b"broken"),
    "weights that are cut": lambda m: (m / "model.safetensors").write_bytes(
        (m / "model.safetensors").read_bytes()[:-1000]
    ),
    "a pointer in place of weights": lambda m: (m / "model.safetensors").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    ),
    "weights without any of the model's": lambda m: save_file(
        {"a": np.zeros(3, np.float32)}, m / "model.safetensors", metadata={"format": "pt"}
    ),
    "no weights": lambda m: (m / "model.safetensors").unlink(),
    "an index of absent shards": lambda m: (m / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}})
    ),
    "no tokenizer": lambda m: (m / "tokenizer.json").unlink(),
    "a tokenizer that is cut": lambda m: (m / "tokenizer.json").write_bytes((m / "tokenizer.json").read_bytes()[:99]),
    "a text config that is a word": _edit("config.json", text_config="large"),
    "a type that is a list": _edit("config.json", model_type=["qwen2_5_vl"]),
    "sizes that do not fit": _edit("config.json", vision_config={"depth": 10**9}),
    "no generation": lambda m: (m / "generation_config.json").write_text("[]"),
    "a folder that is a file": lambda m: (m.rename(m.with_name("moved")), m.write_text("no folder")),
}


@pytest.fixture
def copied(tiny_model: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.frameworks
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_folder_is_one_sentence(copied: Path, name: str) -> None:
    HOSTILE[name](copied)
    with pytest.raises(LadError) as caught:
        load_backend("transformers", BackendOptions(model=str(copied), device="cpu"))
    assert "\n" not in str(caught.value)
    assert str(copied) in str(caught.value)


@pytest.mark.frameworks
@pytest.mark.slow
@pytest.mark.parametrize("break_it", [_code, _code_of_the_processor])
def test_code_of_a_folder_is_never_run_and_nobody_is_asked(copied: Path, tmp_path: Path, break_it: Break) -> None:
    from PIL import Image

    break_it(copied)
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    words = ["ask", "--reference", "a.png", "--query", "a.png", "--model", str(copied), "--device", "cpu"]
    command = [sys.executable, "-m", "lad_reasoner.commands.lad", *words, "--max-new-tokens", "2"]
    done = subprocess.run(command, cwd=tmp_path, input="y\n" * 50, capture_output=True, text=True, check=False)
    assert "code of a model folder was run" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "trust" not in done.stdout
    assert done.returncode in {0, 1, 2}
