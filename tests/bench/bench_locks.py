"""Two writers with one output, and killed writers: never a corrupt file, never exit code 0 for the loser.

    python tests/bench/bench_locks.py --pairs 200 --kills 200

Each writer is a child process that was forked after the imports, so that a build takes tens of milliseconds and a
delay or a kill may hit every moment of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet  # noqa: F401 - before the forks
from PIL import Image

from lad_datasets.annotate.annotate import annotate_with_templates
from lad_datasets.annotate.subjects import find_subjects
from lad_datasets.builders.grpo import build_grpo
from lad_datasets.builders.options import Options
from lad_datasets.builders.sft import build_sft
from lad_datasets.files.images import Encoding
from lad_reasoner.support.errors import LadError
from lad_reasoner.support.findings import Findings


def draw_tree(root: Path) -> Path:
    """Draw 2 x 16 images in a user's layout, and annotations of them."""
    noise = np.random.default_rng(0)
    for category in ("gear", "nut"):
        for place, count in (("train/good", 4), ("test/good", 6), ("test/dent", 6)):
            for number in range(count):
                path = root / "own" / category / place / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise.integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(path)
    rows = [
        {
            "id": str(number),
            "images": [str(path)],
            "question": "<image>\nIs it sound?",
            "answer": "It is.",
            "dataset": "own",
            "category": "gear",
        }
        for number, path in enumerate(sorted((root / "own").glob("*/test/*/*.png")))
    ]
    (root / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def writers(root: Path) -> Mapping[str, tuple[str, Callable[[Path, int], object]]]:
    """Return what writes an output, by verb: its name, and a function of the output and a seed."""
    trees = {"folder": root / "own"}
    small = Encoding(max_pixels=9000)

    def annotate(out: Path, seed: int) -> None:
        subjects = find_subjects(trees, mmad_root=None, findings=Findings(quiet=True), limit=10 + seed)
        annotate_with_templates(subjects, out, Findings(quiet=True))

    return {
        "grpo": ("o.parquet", lambda out, seed: build_grpo(trees, out, Options(seed=seed), recipe="all")),
        "shrunk": ("s.parquet", lambda out, s: build_grpo(trees, out, Options(seed=s, encoding=small), recipe="all")),
        "shards": ("shards", lambda out, s: build_grpo(trees, out, Options(seed=s, shard_mb=1), recipe="all")),
        "sft": ("sft", lambda out, seed: build_sft(root / "annotations.jsonl", out, val_fraction=0.3, seed=seed)),
        "annotate": ("qa", annotate),
    }


def start(write: Callable[[Path, int], object], out: Path, seed: int, delay: float = 0.0) -> int:
    """Run a writer in a child process; its exit code is that of the command line."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    try:
        time.sleep(delay)
        write(out, seed)
    except LadError as error:
        os._exit(error.exit_code)
    except BaseException:
        os._exit(99)
    os._exit(0)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones included; absolute paths of outputs are not in them."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(pairs: int, kills: int, root: Path) -> Counter[str]:
    """Race and kill writers.

    Raises:
        AssertionError: A file is corrupt, a loser has exit code 0, or something is left behind.
    """
    rng = random.Random(0)
    counts: Counter[str] = Counter()
    verbs = writers(draw_tree(root))
    expected = {}
    seconds = {}
    for verb, (name, write) in verbs.items():
        for seed in (1, 2):
            folder = root / f"expected-{verb}-{seed}" / "out"
            begun = time.monotonic()
            assert os.waitpid(start(write, folder / name, seed), 0)[1] == 0
            seconds[verb] = time.monotonic() - begun
            expected[verb, seed] = contents(folder)
    for number in range(pairs):
        verb = list(verbs)[number % len(verbs)]
        name, write = verbs[verb]
        folder = root / f"pair-{number}" / "out"
        children = [start(write, folder / name, 1), start(write, folder / name, 2, rng.uniform(0, seconds[verb]))]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        counts[f"{verb}: exit codes {sorted(codes)}"] += 1
        # annotate replaces what an earlier run wrote, so that both may succeed, one after the other.
        assert codes.count(0) == 1 or (verb == "annotate" and codes == [0, 0]), (verb, codes)
        found = contents(folder)
        assert found in [expected[verb, seed] for seed in (1, 2) if codes[seed - 1] == 0], (verb, codes, list(found))
        shutil.rmtree(folder.parent)
    for number in range(kills):
        verb = list(verbs)[number % len(verbs)]
        name, write = verbs[verb]
        folder = root / f"kill-{number}" / "out"
        child = start(write, folder / name, 1)
        time.sleep(rng.uniform(0, 1.2 * seconds[verb]))
        os.kill(child, signal.SIGKILL)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
        counts[f"{verb}: {'killed' if killed else 'ended before the kill'}"] += 1
        again = os.waitstatus_to_exitcode(os.waitpid(start(write, folder / name, 1), 0)[1])
        exists = contents(folder) == expected[verb, 1]
        assert exists, (verb, killed, again, sorted(contents(folder)))
        assert again in {0, 2}, (verb, killed, again)
        shutil.rmtree(folder.parent)
    return counts


def main() -> None:
    """Print how often each outcome occurred."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for outcome, count in sorted(run(options.pairs, options.kills, Path(folder)).items()):
            print(f"{count:4d}  {outcome}")


if __name__ == "__main__":
    main()
