"""A folder with the data that the pages speak of: small rendered trees under the names of the real ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def base_model(repository: Path) -> Path:
    """The packaged tiny model, which stands for every model of the pages."""
    return repository / "plugin/lad_rehearsal/demo/base"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "work"
    sizes = ["--train", "3", "--test", "16", "--loco-test", "12", "--sft", "20"]
    build = [sys.executable, "-m", "lad_reasoner.commands.lad", "build", "synthetic", "--out", str(folder), *sizes]
    subprocess.run(build, check=True, capture_output=True)
    loco = folder / "mvtec_loco" / "screw_bag"
    own = folder / "my_products" / "my_product"
    for part in ("train/good", "test/good"):
        shutil.copytree(loco / part, own / part)
    shutil.copytree(loco / "test/logical_anomalies", own / "test/missing_part")
    shutil.copy(min((own / "train/good").iterdir()), folder / "good.png")
    shutil.copy(min((own / "test/missing_part").iterdir()), folder / "query.png")
    # What `lad annotate` leaves.
    (folder / "data/qa").mkdir(parents=True)
    shutil.copy(folder / "annotations.jsonl", folder / "data/qa")
    (folder / "data/qa/sft").symlink_to(folder / "sft")
    (folder / "examples").symlink_to(repository / "examples")
    return folder
