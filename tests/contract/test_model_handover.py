"""A model goes from transformers 4 to 5 and back: faulty before `lad check --fix`, the same logits after it.

The other version lies in a folder that LAD_TRANSFORMERS4 names, or is installed into one with LAD_INSTALL_IN_TESTS=1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from lad_reasoner.models.compatibility import check_model_folder, repair_model_folder
from lad_rehearsal.demo.tiny import BASE

pytestmark = [pytest.mark.frameworks, pytest.mark.slow]

#: The last transformers 4, and the hub client that it needs; everything else is as installed.
PINNED = ("transformers==4.57.6", "huggingface_hub==0.36.2")

SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]

SAVE = """
import sys, torch
from transformers import AutoModelForImageTextToText, AutoProcessor
source, target, tied, special = sys.argv[1], sys.argv[2], sys.argv[3] == "tied", sys.argv[4].split()
model, processor = AutoModelForImageTextToText.from_pretrained(source), AutoProcessor.from_pretrained(source)
if not tied:
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
    torch.manual_seed(0)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
processor.tokenizer.add_special_tokens({"additional_special_tokens": special})
model.save_pretrained(target)
processor.save_pretrained(target)
"""

LOAD = """
import json, sys, torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
said = {}
try:
    processor = AutoProcessor.from_pretrained(sys.argv[1])
    image = Image.linear_gradient("L").convert("RGB").resize((84, 84))
    text = "<|vision_start|><|image_pad|><|vision_end|> yes or no"
    inputs = processor(text=[text], images=[image], return_tensors="pt")
    said["ids"] = inputs["input_ids"].tolist()
    model, loaded = AutoModelForImageTextToText.from_pretrained(sys.argv[1], output_loading_info=True)
    said["missing"] = sorted(loaded["missing_keys"])
    with torch.no_grad():
        said["logits"] = model.float().eval()(**inputs).logits[0, -1].tolist()
except Exception as fault:
    said["fault"] = f"{type(fault).__name__}: {fault}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder with transformers 4."""
    if named := os.environ.get("LAD_TRANSFORMERS4"):
        return named
    if not os.environ.get("LAD_INSTALL_IN_TESTS"):
        pytest.skip("no transformers 4: LAD_TRANSFORMERS4 names its folder, LAD_INSTALL_IN_TESTS=1 makes one")
    site = str(tmp_path_factory.mktemp("transformers4"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, *PINNED]
    subprocess.run(pip, check=True)
    return site


def python(code: str, *words: str, site: str | None) -> str:
    paths = [site, os.environ.get("PYTHONPATH")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-c", code, *words]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return run.stdout


def save(target: Path, site: str | None = None, *, tied: bool = True) -> Path:
    python(SAVE, str(BASE), str(target), "tied" if tied else "untied", " ".join(SPECIAL), site=site)
    return target


def load(folder: Path, site: str | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(python(LOAD, str(folder), site=site).splitlines()[-1])
    return answer


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert "fault" not in wanted
    assert {**found, "logits": None} == {**wanted, "logits": None}
    # The versions resize images by other routines: what is given to the model differs by rounding.
    assert found["logits"] == pytest.approx(wanted["logits"], abs=2e-2)


def test_what_is_repaired_is_still_the_same_model_here(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    wanted = load(folder)
    assert {fault.finding.where.partition(":")[0] for fault in check_model_folder(folder)} >= {
        "config.json",
        "tokenizer_config.json",
        "processor_config.json",
    }
    assert repair_model_folder(folder)[2] == []
    assert_same(load(folder), wanted)


def test_a_tie_that_is_lost_for_this_version_is_found_and_repaired(tmp_path: Path) -> None:
    """What transformers 4 leaves of config.json, made by hand: the top-level key is not there."""
    folder = save(tmp_path / "model")
    wanted = load(folder)
    tree = json.loads((folder / "config.json").read_text())
    del tree["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(tree))
    assert load(folder)["missing"] == ["lm_head.weight"]
    assert repair_model_folder(folder)[2] == []
    assert_same(load(folder), wanted)


@pytest.mark.parametrize("tied", [True, False])
def test_from_this_version_to_the_older(tmp_path: Path, old: str, *, tied: bool) -> None:
    folder = save(tmp_path / "model", tied=tied)
    wanted = load(folder)
    assert "'list' object has no attribute 'keys'" in load(folder, old)["fault"]
    assert repair_model_folder(folder)[2] == []
    assert_same(load(folder, old), wanted)
    assert_same(load(folder), wanted)


@pytest.mark.parametrize("tied", [True, False])
def test_from_the_older_version_to_this(tmp_path: Path, old: str, *, tied: bool) -> None:
    folder = save(tmp_path / "model", old, tied=tied)
    wanted = load(folder, old)
    assert load(folder)["missing"] == (["lm_head.weight"] if tied else [])
    assert repair_model_folder(folder)[2] == []
    assert_same(load(folder), wanted)
    assert_same(load(folder, old), wanted)
