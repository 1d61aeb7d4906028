"""Seconds that `easyr1 check` takes on the paper's config, with as many pairs as the paper has, beside Python's start.

Run: chrt -r 1 python tests/bench/bench_check.py    (chrt keeps other programs off the core; leave it out if refused)
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lad_datasets.files.parquet import PairWriter
from lad_reasoner.pairs.schema import Image, Pair

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "grpo" / "qwen2_5_vl_3b_loco.yaml"
#: Pairs and categories of the paper's training and validation sets; each category's pairs stand together.
PAIRS = {"grpo": (984, 7), "loco": (1_136, 5)}
#: Bytes of an image, about those of MVTec AD's; only its header is looked at.
IMAGE_BYTES = 1_000_000
PASSES = 5


def write_pairs(path: Path, count: int, categories: int) -> None:
    """Write pairs of large images."""
    import io

    from PIL import Image as Picture

    head = io.BytesIO()
    Picture.new("RGB", (1024, 1024)).save(head, "PNG")
    data = head.getvalue() + random.Random(0).randbytes(IMAGE_BYTES)
    image = Image(data=data, path="image.png", sha256="0" * 64)
    writer = PairWriter(path)
    for index in range(count):
        label = "yes" if index % 2 else "no"
        category = f"category_{index * categories // count}"
        names = {"dataset": "mvtec_ad", "category": category, "kind": "existence", "defect": "missing_cable"}
        writer.write_pair(Pair(pair_id=str(index), label=label, references=[image], query=image, **names))
    writer.close()


def seconds_of(words: list[str]) -> list[float]:
    """Return the seconds of each pass, shortest first."""
    passes = []
    for _ in range(PASSES):
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=False, stdout=subprocess.DEVNULL)
        passes.append(time.perf_counter() - start)
    return sorted(passes)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.parquet" for name in PAIRS}
        for name, (count, categories) in PAIRS.items():
            write_pairs(files[name], count, categories)
        data = [f"data.train_files={files['grpo']}", f"data.val_files={files['loco']}"]
        check = seconds_of(["-m", "lad_reasoner.commands.easyr1", "check", f"config={CONFIG}", *data])
        size = sum(path.stat().st_size for path in files.values())
    bare = seconds_of(["-c", "pass"])
    shown = {"check": check, "python": bare}
    seconds = {
        name: {"best": round(times[0], 2), "median": round(times[PASSES // 2], 2)} for name, times in shown.items()
    }
    pairs = sum(count for count, _ in PAIRS.values())
    print(json.dumps({"pairs": pairs, "gigabytes": round(size / 1e9, 1), "seconds": seconds}, indent=2))


if __name__ == "__main__":
    main()
