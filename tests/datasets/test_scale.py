"""Many pairs, many references a pair: the memory of a build does not grow with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.memory import PEAK_MB

BUILD = (
    PEAK_MB
    + """
import json, sys
from pathlib import Path
from lad_datasets.builders.options import Options
from lad_datasets.builders.grpo import build_grpo
options = Options(workers=2, votes=int(sys.argv[3]), shots=int(sys.argv[4]), shard_mb=64)
manifest = build_grpo({"folder": Path(sys.argv[1])}, Path(sys.argv[2]), options, recipe="all", limit=None, loco=None)
print(json.dumps([manifest["rows"], peak_mb()]))
"""
)


def build(root: Path, out: Path, votes: int, shots: int = 1) -> tuple[int, float]:
    """Return the rows of a build and its peak memory in MB."""
    command = [sys.executable, "-c", BUILD, str(root), str(out), str(votes), str(shots)]
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


@pytest.mark.slow
def test_a_hundred_thousand_pairs(draw_tiny, tmp_path) -> None:
    """Of 1,000 tiny images against 100 references each."""
    for folder, number in (("train/good", 110), ("test/good", 500), ("test/dent", 500)):
        for index in range(number):
            draw_tiny(tmp_path / "tree/gear" / folder / f"{index:04d}.png")
    rows, peak = build(tmp_path / "tree", tmp_path / "out", 100)
    assert rows == 100_000
    assert peak < 500
    (shard, *more) = sorted((tmp_path / "out").iterdir())
    assert more, "one shard holds all"
    ids = [name for path in (shard, *more) for name in pq.read_table(path, columns=["pair_id"])[0].to_pylist()]
    assert len(set(ids)) == len(ids) == 100_000
    assert ids[:2] == ["folder/gear/test/dent/0000.png#0", "folder/gear/test/dent/0000.png#1"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_references(tmp_path) -> None:
    """5 MB an image, as MVTec LOCO AD's largest: 20 references a query would fill half a gigabyte by reading ahead."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1100, 1520, 3), dtype=np.uint8)
    for folder, number in (("train/good", 24), ("test/dent", 12)):
        (tmp_path / "tree/gear" / folder).mkdir(parents=True)
        for index in range(number):
            noise[0, 0] = len(folder), index, 0
            Image.fromarray(noise).save(tmp_path / "tree/gear" / folder / f"{index}.png", compress_level=0)
    rows, peak = build(tmp_path / "tree", tmp_path / "out", 10, 2)
    assert rows == 120
    assert peak < 500
