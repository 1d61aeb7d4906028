"""What is built is read by the installed frameworks themselves, images and all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import pytest

from lad_reasoner.commands.lad import build_app, command_line, run_app

#: The demo's processor shrinks every picture to 84x84: 3x3 tokens.
IMAGE_TOKENS = 9

pytestmark = [pytest.mark.slow, pytest.mark.frameworks]


def lad(*words: object) -> None:
    assert run_app(lambda: command_line(build_app)([str(word) for word in words]), debug=True) == 0


@pytest.fixture(scope="module")
def tree(shared_data) -> Path:
    return shared_data / "real" / "mvtec_ad_reduced"


@pytest.fixture(scope="module")
def parquets(tree, tmp_path_factory) -> dict[str, Path]:
    """The same pairs with the bytes inside, and by path."""
    folder = tmp_path_factory.mktemp("pairs")
    for images in ("embed", "path"):
        words = ("--mvtec", tree, "--recipe", "all", "--images", images, "--out", folder / f"{images}.parquet")
        lad("build", "grpo", *words)
    return {images: folder / f"{images}.parquet" for images in ("embed", "path")}


@pytest.fixture(scope="module")
def model(repository) -> Path:
    return repository / "plugin" / "lad_rehearsal" / "demo" / "base"


READ_WITH_DATASETS = """
import io, sys
from datasets import __version__, load_dataset
from PIL import Image
rows = load_dataset("parquet", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
for row in rows:
    assert row["problem"].count("<image>") == len(row["images"]) == 2
    for image in row["images"]:
        Image.open(io.BytesIO(image["bytes"]) if isinstance(image, dict) else image).load()
print(__version__, len(rows))
"""


@pytest.mark.parametrize("images", ["embed", "path"])
def test_installed_datasets(parquets, tmp_path, images) -> None:
    command = [sys.executable, "-c", READ_WITH_DATASETS, str(parquets[images]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [version("datasets"), "10"]


READ_WITH_CARD = """
import json, sys
from datasets import load_dataset
from huggingface_hub import DatasetCard
card = DatasetCard.load(sys.argv[1] + "/README.md").data
rows = {split: len(part) for split, part in load_dataset(sys.argv[1], cache_dir=sys.argv[2]).items()}
print(json.dumps([card.license, card.task_categories, card.language, rows]))
"""


@pytest.mark.parametrize("sharded", [False, True])
def test_the_hub_reads_the_card(tree, tmp_path, sharded) -> None:
    """Uploaded as README.md beside the data, the card tells the Hub which files make which split."""
    upload = tmp_path / "upload"
    upload.mkdir()
    words = ("--shard-mb", 1, "--out", upload / "pairs") if sharded else ("--out", upload / "pairs.parquet")
    lad("build", "grpo", "--mvtec", tree, "--recipe", "all", *words)
    (upload / "pairs.card.md").rename(upload / "README.md")
    command = [sys.executable, "-c", READ_WITH_CARD, str(upload), str(tmp_path / "cache")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    licence, tasks, languages, rows = json.loads(done.stdout)
    assert (licence, languages, rows) == ("cc-by-nc-sa-4.0", ["en"], {"train": 10})
    assert "visual-question-answering" in tasks


@pytest.mark.parametrize("release", ["3.6", "5.2"])
def test_other_releases_of_datasets(parquets, tmp_path, release) -> None:
    if not os.environ.get("LAD_INSTALL_IN_TESTS"):
        pytest.skip(f"datasets {release} is not installed; LAD_INSTALL_IN_TESTS=1 installs it in a temporary folder")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), f"datasets=={release}.*"]
    subprocess.run(pip, check=True)
    for images in ("embed", "path"):
        command = [sys.executable, "-c", READ_WITH_DATASETS, str(parquets[images]), str(tmp_path / "cache")]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found, rows = done.stdout.split()
        assert found.startswith(f"{release}.")
        assert rows == "10"


@pytest.mark.parametrize("images", ["embed", "path"])
def test_verl(parquets, model, tmp_path, images) -> None:
    from omegaconf import OmegaConf
    from qwen_vl_utils import process_vision_info
    from transformers import AutoProcessor, AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    config = OmegaConf.create(
        {
            "cache_dir": str(tmp_path),
            "prompt_key": "prompt",
            "image_key": "images",
            "max_prompt_length": 512,
            "filter_overlong_prompts": True,
            "filter_overlong_prompts_workers": 1,
            "truncation": "error",
        }
    )
    tokenizer, processor = AutoTokenizer.from_pretrained(model), AutoProcessor.from_pretrained(model)
    rows = RLHFDataset([str(parquets[images])], tokenizer, config, processor=processor)
    assert len(rows) == 10
    for row in (rows[0], rows[9]):
        pictures, _ = process_vision_info(row["raw_prompt"])
        assert [picture.size for picture in pictures] == [(252, 252)] * 2
        assert json.loads(row["reward_model"]["ground_truth"])["label"] in {"yes", "no"}


READ_WITH_LLAMA_FACTORY = """
import json, sys
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
model, data, out, *names = sys.argv[1:]
counts = {}
for name in names:  # one at a time: LLaMA-Factory cannot mix images by path with images by bytes
    model_args, data_args, training_args, _, _ = get_train_args({
        "model_name_or_path": model, "stage": "sft", "do_train": True, "dataset_dir": data, "dataset": name,
        "template": "qwen2_vl", "cutoff_len": 4096, "output_dir": out, "use_cpu": True, "report_to": "none",
        "overwrite_cache": True, "preprocessing_num_workers": 1})
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)["train_dataset"]
    pad = module["tokenizer"].convert_tokens_to_ids("<|image_pad|>")
    counts[name] = [sum(token == pad for token in row["input_ids"]) for row in rows]
print(json.dumps(counts))
"""


def read_with_llama_factory(model: Path, data: Path, out: Path, *names: str) -> dict[str, list[int]]:
    """Return the image tokens of each row by dataset, as LLaMA-Factory tokenises it."""
    command = [sys.executable, "-c", READ_WITH_LLAMA_FACTORY, str(model), str(data), str(out), *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(out / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    counts: dict[str, list[int]] = json.loads(done.stdout.strip().splitlines()[-1])
    return counts


def test_llama_factory_reads_pairs(parquets, model, tmp_path) -> None:
    columns = {"prompt": "problem", "response": "answer", "images": "images"}
    info = {
        name: {"file_name": str(path), "formatting": "alpaca", "columns": columns} for name, path in parquets.items()
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    counts = read_with_llama_factory(model, tmp_path, tmp_path, *parquets)
    assert counts == {name: [2 * IMAGE_TOKENS] * 10 for name in parquets}


def test_llama_factory_reads_an_sft_folder(tree, model, tmp_path) -> None:
    qa = tmp_path / "qa"
    qa.mkdir()
    rows = [
        {
            "id": str(number),
            "images": [str(path)],
            "question": "<image>What is wrong?",
            "answer": "bent",
            "dataset": "mvtec_ad",
            "category": "transistor",
        }
        for number, path in enumerate(sorted(tree.glob("transistor/test/*/*.png")))
    ]
    (qa / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lad("build", "sft", "--annotations", qa, "--out", tmp_path / "sft", "--val-fraction", 0.2)
    names = ("lad_sft", "lad_sft_parquet", "lad_sft_val", "lad_sft_val_parquet")
    counts = read_with_llama_factory(model, tmp_path / "sft", tmp_path, *names)
    assert counts == {name: [IMAGE_TOKENS] * (2 if "val" in name else 8) for name in names}


def test_easyr1s_way_of_reading(parquets) -> None:
    """EasyR1 opens ``image["bytes"]`` of a struct, or a path; then converts to RGB."""
    import pyarrow.parquet as pq
    from PIL import Image

    for parquet in parquets.values():
        for row in pq.read_table(parquet).to_pylist():
            for image in row["images"]:
                source = BytesIO(image["bytes"]) if isinstance(image, dict) else image
                assert Image.open(source).convert("RGB").size == (256, 256)
