"""Many pairs: the memory of a build does not grow with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.memory import PEAK_MB

BUILD = (
    PEAK_MB
    + """
import json, sys
from pathlib import Path
from lad_datasets.build import Options
from lad_datasets.grpo import build_grpo
options = Options(workers=2, votes=int(sys.argv[3]), shard_mb=64)
manifest = build_grpo({"folder": Path(sys.argv[1])}, Path(sys.argv[2]), options, recipe="all", limit=None, loco=None)
print(json.dumps([manifest["rows"], peak_mb()]))
"""
)


def build(root: Path, out: Path, votes: int) -> tuple[int, float]:
    """Return the rows of a build and its peak memory in MB."""
    command = [sys.executable, "-c", BUILD, str(root), str(out), str(votes)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    rows, peak = json.loads(done.stdout)
    return rows, peak


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pairs(tmp_path) -> None:
    """20,000 pairs of 40 kB images, 1.6 GB in all, against a tenth of them."""
    rng = np.random.default_rng(0)
    for folder, number in (("train/good", 60), ("test/dent", 400)):
        (tmp_path / "tree/gear" / folder).mkdir(parents=True)
        for index in range(number):
            noise = rng.integers(0, 256, (115, 115, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "tree/gear" / folder / f"{index}.png", compress_level=0)
    small = build(tmp_path / "tree", tmp_path / "small", 5)
    large = build(tmp_path / "tree", tmp_path / "large", 50)
    assert (small[0], large[0]) == (2_000, 20_000)
    assert large[1] < 500
    assert large[1] < 1.25 * small[1], "memory grows with the pairs"
    sizes = [path.stat().st_size for path in (tmp_path / "large").iterdir()]
    assert len(sizes) > 20
    assert max(sizes) < 75_000_000
