"""`lad check MODEL_DIR`: faults of the hand-over between transformers 4 and 5 are found, safe ones repaired."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_reasoner.models.compatibility import check_model_folder, repair_model_folder
from lad_reasoner.models.folder import ABSENT, Edit, ModelFolder, apply_edits
from lad_reasoner.models.weights import read_header
from lad_reasoner.support.errors import DataError

CONFIG: dict[str, Any] = {
    "model_type": "qwen2_5_vl",
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "tie_word_embeddings": True,
    "text_config": {
        "vocab_size": 8,
        "hidden_size": 4,
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
        "rope_theta": 10.0,
        "rope_scaling": {"rope_type": "default", "mrope_section": [1, 1]},
        "eos_token_id": 1,
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    },
    "vision_config": {"depth": 1},
}
WEIGHTS = {
    "model.embed_tokens.weight": [8, 4],
    "model.layers.0.mlp.weight": [4, 4],
    "model.layers.1.mlp.weight": [4, 4],
    "visual.blocks.0.weight": [2, 2],
}
IMAGES = {
    "size": {"shortest_edge": 3136, "longest_edge": 401408},
    "min_pixels": 3136,
    "max_pixels": 401408,
    "image_processor_type": "Qwen2VLImageProcessor",
}


def write_weights(path: Path, shapes: dict[str, list[int]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * end)


def write(path: Path, tree: object) -> None:
    path.write_text(json.dumps(tree), encoding="utf-8")


def change(path: Path, *keys: str, value: object) -> None:
    apply_edits(path.parent, [Edit(path.name, keys, value)])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with which nothing is wrong."""
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "config.json", CONFIG)
    write(folder / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer"})
    write(folder / "tokenizer.json", {})
    write(folder / "preprocessor_config.json", IMAGES)
    write(folder / "generation_config.json", {"eos_token_id": [1]})
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    write_weights(folder / "model.safetensors", WEIGHTS)
    return folder


def said(folder: Path, **options: Any) -> list[str]:
    return [str(fault.finding) for fault in check_model_folder(folder, **options)]


def test_a_good_folder_is_left_alone(model):
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    assert said(model) == []
    assert repair_model_folder(model) == ([], [], [])
    assert {file.name: file.read_bytes() for file in model.iterdir()} == before


#: What is done to a good folder, what is said, and whether it can be repaired.
FAULTS: dict[str, tuple[Any, str, bool]] = {
    "special tokens as a list": (
        lambda m: change(m / "tokenizer_config.json", "extra_special_tokens", value=["<a>"]),
        "extra_special_tokens: a list does not load in transformers 4",
        True,
    ),
    "a class of transformers 5": (
        lambda m: change(m / "tokenizer_config.json", "tokenizer_class", value="TokenizersBackend"),
        "tokenizer_class: transformers 4 has no class TokenizersBackend; it needs Qwen2Tokenizer",
        True,
    ),
    "no class where vLLM reads it": (
        lambda m: change(m / "config.json", "text_config", "architectures", value=ABSENT),
        "text_config.architectures: the key is missing: with transformers 4, vLLM reads the model's class here",
        True,
    ),
    "pixel limits only in size": (
        lambda m: change(m / "preprocessor_config.json", "max_pixels", value=ABSENT),
        "the limits are only in size: with transformers 4, vLLM reads min_pixels and max_pixels",
        True,
    ),
    "tied, said inside only": (
        lambda m: change(m / "config.json", "tie_word_embeddings", value=ABSENT),
        "tie_word_embeddings: top level absent, and there is no lm_head.weight: transformers 5",
        True,
    ),
    "tied, said outside only": (
        lambda m: change(m / "config.json", "text_config", "tie_word_embeddings", value=ABSENT),
        "text_config absent, and there is no lm_head.weight: transformers 4",
        True,
    ),
    "a lost head": (
        lambda m: (
            change(m / "config.json", "tie_word_embeddings", value=False),
            change(m / "config.json", "text_config", "tie_word_embeddings", value=False),
        ),
        "tie_word_embeddings: it is false, but there is no lm_head.weight. The head was lost",
        False,
    ),
    "a head beside a tie": (
        lambda m: write_weights(m / "model.safetensors", {**WEIGHTS, "lm_head.weight": [8, 4]}),
        "warning: config.json: tie_word_embeddings: it is true, but the weights include a separate head",
        False,
    ),
    "rope in the new form": (
        lambda m: (
            change(m / "config.json", "text_config", "rope_theta", value=ABSENT),
            change(m / "config.json", "text_config", "rope_scaling", value=None),
            change(
                m / "config.json", "text_config", "rope_parameters", value={"rope_theta": 7.0, "mrope_section": [2]}
            ),
        ),
        "text_config.rope_theta: 7.0 is only in rope_parameters",
        True,
    ),
    "two rope bases": (
        lambda m: change(m / "config.json", "text_config", "rope_parameters", value={"rope_theta": 7.0}),
        "rope_theta: it is 10.0, but 7.0 in rope_parameters",
        False,
    ),
    "the processor in the new form": (
        lambda m: (
            (m / "preprocessor_config.json").unlink(),
            write(m / "processor_config.json", {"processor_class": "P", "image_processor": IMAGES}),
        ),
        "image_processor: transformers below 4.57 does not load it from here; both versions read preprocessor",
        True,
    ),
    "two pixel bounds": (
        lambda m: write(m / "processor_config.json", {"image_processor": {"max_pixels": 5}}),
        "preprocessor_config.json: allows 401408 pixels, but processor_config.json allows 5",
        False,
    ),
    "no image processor": (
        lambda m: (m / "preprocessor_config.json").unlink(),
        "preprocessor_config.json: the file is missing, and processor_config.json has no image_processor",
        False,
    ),
    "no chat template": (
        lambda m: (m / "chat_template.jinja").unlink(),
        "chat_template.jinja: there is no chat template",
        False,
    ),
    "no tokenizer": (lambda m: (m / "tokenizer.json").unlink(), "tokenizer.json: the file is missing", False),
    "no tokenizer config": (
        lambda m: (m / "tokenizer_config.json").unlink(),
        "tokenizer_config.json: the file is missing",
        False,
    ),
    "no end of an answer": (
        lambda m: (
            (m / "generation_config.json").unlink(),
            change(m / "config.json", "text_config", "eos_token_id", value=ABSENT),
        ),
        "warning: generation_config.json: there is no eos_token_id",
        False,
    ),
    "no config": (lambda m: (m / "config.json").unlink(), "config.json: the file is missing", False),
    "a config that is no JSON": (
        lambda m: (m / "config.json").write_text("{'a': 1}"),
        "config.json: no JSON object",
        False,
    ),
    "a config that is a list": (lambda m: write(m / "config.json", []), "no JSON object: a list", False),
    "no model type": (
        lambda m: change(m / "config.json", "model_type", value=ABSENT),
        "config.json: model_type: the key is missing",
        False,
    ),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "*.safetensors: the folder has no weights", False),
    "pickled weights": (
        lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"),
        "the folder has only pytorch_model.bin",
        False,
    ),
    "truncated weights": (
        lambda m: (m / "model.safetensors").write_bytes((m / "model.safetensors").read_bytes()[:-1]),
        "file not fully covered",
        False,
    ),
    "a truncated header": (
        lambda m: (m / "model.safetensors").write_bytes((m / "model.safetensors").read_bytes()[:60]),
        "model.safetensors: broken or incomplete",
        False,
    ),
    "an empty weight file": (
        lambda m: (m / "model.safetensors").write_bytes(b""),
        "model.safetensors: broken or incomplete",
        False,
    ),
    "a missing shard": (
        lambda m: write(
            m / "model.safetensors.index.json",
            {"weight_map": {**dict.fromkeys(WEIGHTS, "model.safetensors"), "lm_head.weight": "b.safetensors"}},
        ),
        "b.safetensors: the file is missing, but model.safetensors.index.json names it",
        False,
    ),
    "a weight missing from its shard": (
        lambda m: write(
            m / "model.safetensors.index.json",
            {"weight_map": dict.fromkeys([*WEIGHTS, "visual.merger.weight"], "model.safetensors")},
        ),
        "1 weights that model.safetensors.index.json names are missing (visual.merger.weight)",
        False,
    ),
    "files of two saves": (
        lambda m: (
            write(m / "model.safetensors.index.json", {"weight_map": dict.fromkeys(WEIGHTS, "model.safetensors")}),
            write_weights(m / "old.safetensors", {"model.norm.weight": [1, 4]}),
        ),
        "old.safetensors: has 1 weights that the index does not name",
        False,
    ),
    "shards without an index": (
        lambda m: write_weights(m / "more.safetensors", {"model.norm.weight": [1, 4]}),
        "model.safetensors.index.json: the index of the 2 weight files is missing",
        False,
    ),
    "a missing layer": (
        lambda m: write_weights(m / "model.safetensors", {k: v for k, v in WEIGHTS.items() if "layers.1" not in k}),
        "num_hidden_layers: is 2, but there are weights of 1 layers (first difference: layer 1)",
        False,
    ),
    "a missing vision layer": (
        lambda m: change(m / "config.json", "vision_config", "depth", value=2),
        "vision_config.depth: is 2, but there are weights of 1 layers",
        False,
    ),
    "another vocabulary": (
        lambda m: change(m / "config.json", "text_config", "vocab_size", value=9),
        "is (9, 4), but model.embed_tokens.weight is (8, 4)",
        False,
    ),
    "pixels of a trainer's folder": (
        lambda m: (m / "training_args.bin").write_bytes(b""),
        "warning: preprocessor_config.json: max_pixels: is 401,408 in a folder that a trainer wrote",
        False,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_and_what_is_safe_is_repaired_once(model, name):
    break_it, says, repairable = FAULTS[name]
    break_it(model)
    for copy in model.glob("*.bak*"):  # of the breaking
        copy.unlink()
    assert any(says in line for line in said(model)), said(model)
    weights = {file.name: file.read_bytes() for file in model.glob("*.safetensors")}
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    edits, copies, left = repair_model_folder(model)
    assert bool(edits) is repairable
    assert (left == []) is repairable
    assert {file.name: file.read_bytes() for file in model.glob("*.safetensors")} == weights
    for copy in copies:
        assert copy.read_bytes() == before[copy.name.removesuffix(".bak")]
    after = {file.name: file.read_bytes() for file in model.iterdir()}
    assert repair_model_folder(model)[:2] == ([], [])
    assert {file.name: file.read_bytes() for file in model.iterdir()} == after


def test_what_is_repaired_is_what_the_other_version_reads(model):
    FAULTS["special tokens as a list"][0](model)
    change(model / "tokenizer_config.json", "additional_special_tokens", value=["<b>", "<a>"])
    FAULTS["rope in the new form"][0](model)
    FAULTS["the processor in the new form"][0](model)
    repair_model_folder(model)
    folder = ModelFolder(model)
    assert folder.get("tokenizer_config.json", "additional_special_tokens") == ["<b>", "<a>"]
    assert folder.get("tokenizer_config.json", "extra_special_tokens") is ABSENT
    assert folder.get("config.json", "text_config", "rope_theta") == 7.0
    assert folder.get("config.json", "text_config", "rope_scaling") == {"mrope_section": [2]}
    assert folder.document("preprocessor_config.json") == {**IMAGES, "processor_class": "P"}
    assert folder.document("processor_config.json") == {"processor_class": "P"}


def test_the_pixels_of_training_are_written_where_they_are_asked_for(model):
    assert said(model, max_pixels=401408) == []
    assert "max_pixels: is 401,408, but training used 200,704" in said(model, max_pixels=200704)[0]
    write(model / "processor_config.json", {"image_processor": {"max_pixels": 5, "size": {"longest_edge": 5}}})
    assert repair_model_folder(model, max_pixels=200704)[2] == []
    assert ModelFolder(model).get("preprocessor_config.json", "size", "longest_edge") == 200704


def test_no_copy_is_ever_replaced(tmp_path):
    write(tmp_path / "a.json", {"x": 1})
    for value in (2, 3):
        apply_edits(tmp_path, [Edit("a.json", ("x",), value)])
    assert [json.loads((tmp_path / f"a.json{end}").read_text())["x"] for end in (".bak", ".bak1", "")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("files", "says"),
    [(["adapter_config.json"], "a LoRA adapter"), (["actor/huggingface/config.json"], "a trainer's checkpoint")],
)
def test_what_must_be_merged_first_is_told(tmp_path, files, says):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, {})
    assert [says in line and "easyr1 merge" in line for line in said(tmp_path)] == [True]


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_error_that_says_so(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    try:
        assert isinstance(read_header(path), dict)
    except DataError as fault:
        assert str(path) in str(fault)


@given(
    tree=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["text_config", "rope_parameters", "size", "image_processor", "weight_map", "extra_special_tokens"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ),
    name=st.sampled_from(
        ["config.json", "tokenizer_config.json", "processor_config.json", "model.safetensors.index.json"]
    ),
)
def test_no_json_makes_the_check_fail(tmp_path_factory, tree, name):
    folder = tmp_path_factory.mktemp("any")
    write(folder / "config.json", CONFIG)
    write_weights(folder / "model.safetensors", WEIGHTS)
    write(folder / name, tree)
    repair_model_folder(folder)
    assert repair_model_folder(folder)[0] == []


def test_the_command_finds_mends_and_imports_no_torch(model):
    FAULTS["tied, said inside only"][0](model)
    code = (
        "import sys; from lad_reasoner.commands.lad import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules"
    )

    def lad(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, "check", str(model), *words], check=False, capture_output=True, text=True
        )

    found = lad()
    assert found.returncode == 1
    assert "`--fix` repairs it" in found.stderr
    assert "1 error, 0 warnings" in found.stdout
    mended = lad("--fix", "--json")
    assert mended.returncode == 0
    report = json.loads(mended.stdout)[0]
    assert report["fixed"] == ["config.json: tie_word_embeddings = true"]
    assert report["facts"]["parameters"] == 68
    assert lad().returncode == 0


def test_only_model_folders_can_be_repaired(workshop):
    words = [sys.executable, "-m", "lad_reasoner.commands.lad", "check", str(workshop / "train.parquet"), "--fix"]
    run = subprocess.run(words, check=False, capture_output=True, text=True)
    assert run.returncode == 2
    assert "only a model folder can be repaired" in run.stderr
