"""A model goes from transformers 4 to 5 and back: faulty before `lad check --fix`, the same logits after it.

The other version lies in a folder that LAD_TRANSFORMERS4 names, or is installed into one with LAD_INSTALL_IN_TESTS=1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from lad_reasoner.models.compatibility import check_model_folder, repair_model_folder
from lad_rehearsal.demo.tiny import BASE

from .model_worker import REPLY

pytestmark = [pytest.mark.frameworks, pytest.mark.slow]

#: The last transformers 4, and the hub client that it needs; everything else is as installed.
PINNED = ("transformers==4.57.6", "huggingface_hub==0.36.2")

WORKER = Path(__file__).with_name("model_worker.py")


class Worker:
    """A process with one version of transformers, which saves and loads models."""

    def __init__(self, site: str | None = None) -> None:
        paths = [site, os.environ.get("PYTHONPATH")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        command = [sys.executable, str(WORKER)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def _ask(self, verb: str, **words: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"verb": verb, **words}), file=self.process.stdin, flush=True)
        reply = next((line for line in self.process.stdout if line.startswith(REPLY)), None)
        assert reply is not None, "the worker ended; its traceback is in the captured stderr"
        return json.loads(reply.removeprefix(REPLY))

    def save(self, target: Path, *, tied: bool = True) -> Path:
        self._ask("save", source=str(BASE), target=str(target), tied=tied)
        return target

    def load(self, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("load", folder=str(folder))
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def new() -> Iterator[Worker]:
    """The installed transformers."""
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The last transformers 4."""
    site = os.environ.get("LAD_TRANSFORMERS4")
    if not site:
        if not os.environ.get("LAD_INSTALL_IN_TESTS"):
            pytest.skip("no transformers 4: LAD_TRANSFORMERS4 names its folder, LAD_INSTALL_IN_TESTS=1 makes one")
        site = str(tmp_path_factory.mktemp("transformers4"))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, *PINNED]
        subprocess.run(pip, check=True)
    worker = Worker(site)
    yield worker
    worker.close()


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert "fault" not in wanted
    assert {**found, "logits": None} == {**wanted, "logits": None}
    # The versions resize images by other routines: what is given to the model differs by rounding.
    assert found["logits"] == pytest.approx(wanted["logits"], abs=2e-2)


def test_what_is_repaired_is_still_the_same_model_here(tmp_path: Path, new: Worker) -> None:
    folder = new.save(tmp_path / "model")
    wanted = new.load(folder)
    assert {fault.finding.where.partition(":")[0] for fault in check_model_folder(folder)} >= {
        "config.json",
        "tokenizer_config.json",
        "processor_config.json",
    }
    assert repair_model_folder(folder)[2] == []
    assert_same(new.load(folder), wanted)


def test_a_tie_that_is_lost_for_this_version_is_found_and_repaired(tmp_path: Path, new: Worker) -> None:
    """What transformers 4 leaves of config.json, made by hand: the top-level key is not there."""
    folder = new.save(tmp_path / "model")
    wanted = new.load(folder)
    tree = json.loads((folder / "config.json").read_text())
    del tree["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(tree))
    assert new.load(folder)["missing"] == ["lm_head.weight"]
    assert repair_model_folder(folder)[2] == []
    assert_same(new.load(folder), wanted)


@pytest.mark.parametrize("tied", [True, False])
def test_from_this_version_to_the_older(tmp_path: Path, new: Worker, old: Worker, *, tied: bool) -> None:
    folder = new.save(tmp_path / "model", tied=tied)
    wanted = new.load(folder)
    assert "'list' object has no attribute 'keys'" in old.load(folder)["fault"]
    assert repair_model_folder(folder)[2] == []
    assert_same(old.load(folder), wanted)
    assert_same(new.load(folder), wanted)


@pytest.mark.parametrize("tied", [True, False])
def test_from_the_older_version_to_this(tmp_path: Path, new: Worker, old: Worker, *, tied: bool) -> None:
    folder = old.save(tmp_path / "model", tied=tied)
    wanted = old.load(folder)
    assert new.load(folder)["missing"] == (["lm_head.weight"] if tied else [])
    assert repair_model_folder(folder)[2] == []
    assert_same(new.load(folder), wanted)
    assert_same(old.load(folder), wanted)
