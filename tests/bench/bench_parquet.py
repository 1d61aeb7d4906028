"""Building against the alternatives, in one run: Hugging Face datasets, a plain pyarrow writer, 1 worker against 2.

Images are drawn at the sizes of MVTec LOCO AD and as incompressible as photographs. Each contender is a process of
its own, so that its peak memory is its own; the best of a few rounds counts, and rounds alternate, so that a busy
machine slows all alike. Ours does more than the others: it checks and hashes every image, writes a manifest and a
card, and waits until the disk has it all. What the others import is imported before the clock starts.

The time of two workers against one says as much about the machine's idle cores; so the CPU seconds are told too: those
of the main thread, which alone are not shared by the workers, bound what two of them can gain. Then 10,000 and 100,000
pairs of tiny images: what a pair costs beside its images, and whether memory grows with their number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

#: By its place, since this file is run as a script and an installed package may be named ``tests`` too.
PEAK_MB = run_path(str(Path(__file__).parents[1] / "memory.py"))["PEAK_MB"]

#: Width, height and number of the pictures: about 250 MB of PNG.
PICTURES = ((1600, 1280, 18), (800, 1600, 24), (1700, 1000, 18), (1600, 1100, 18), (1700, 850, 18))
ROUNDS = 5
SHRINK_ROUNDS = 3
SHRUNK_PAIRS = 16
#: One worker's seconds on the clock by its CPU seconds; 1.04 on an idle machine.
BUSY = 1.15
STUB = Image.new("L", (2, 2), 128)
#: Queries of the stub trees, in 20 categories with 200 references each.
MANY_PAIRS = (10_000, 100_000)

PREAMBLE = PEAK_MB + "import json, sys, time; from pathlib import Path; root, out = map(Path, sys.argv[1:3])\n"
#: Contenders set ``start`` once all is imported, and with it the CPU seconds so far of the process and of this thread.
EPILOGUE = """
seconds = time.perf_counter() - start
print(json.dumps([seconds, peak_mb(), time.process_time() - cpu, time.thread_time() - main]))
"""

OURS = """
from lad_datasets.builders.options import Options
from lad_datasets.files.images import Encoding
from lad_datasets.builders.grpo import build_grpo
import pyarrow.parquet
cpu, main, start = time.process_time(), time.thread_time(), time.perf_counter()
options = Options(workers={workers}, overwrite=True, encoding=Encoding({max_pixels}))
build_grpo({{"folder": root}}, out, options, recipe="all", limit={limit}, loco=None)
"""

CHECK = """
from lad_datasets.checks.check import CheckOptions, check_file
cpu, main, start = time.process_time(), time.thread_time(), time.perf_counter()
assert not check_file(out, CheckOptions(workers={workers})).errors
"""

ROWS = """
def rows():
    references = sorted(root.glob("*/train/good/*.png"))
    for query, reference in zip(sorted(root.glob("*/test/*/*.png")), references):
        images = [{"bytes": path.read_bytes(), "path": str(path)} for path in (reference, query)]
        yield {"problem": "?", "images": images, "answer": "{}"}
"""

DATASETS = (
    ROWS
    + """
from datasets import Dataset, Features, Sequence, Value
import tempfile
image = {"bytes": Value("binary"), "path": Value("string")}
features = Features(problem=Value("string"), images=[image], answer=Value("string"))
cpu, main, start = time.process_time(), time.thread_time(), time.perf_counter()
with tempfile.TemporaryDirectory(dir=out.parent) as cache:
    Dataset.from_generator(rows, features=features, cache_dir=cache).to_parquet(out)
"""
)

PYARROW = (
    ROWS
    + """
import pyarrow as pa, pyarrow.parquet as pq
image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
schema = pa.schema([("problem", pa.string()), ("images", pa.list_(image)), ("answer", pa.string())])
cpu, main, start = time.process_time(), time.thread_time(), time.perf_counter()
with pq.ParquetWriter(out, schema{options}) as writer:
    batch = []
    for row in rows():
        batch.append(row)
        if len(batch) == 8:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch = []
    if batch:
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))
"""
)

TUNED = ", compression='none', use_dictionary=False, write_statistics=False"


def draw_tree(root: Path) -> float:
    """Draw pictures in two halves, references and queries; return their megabytes."""
    rng = np.random.default_rng(0)
    total = 0
    for category, (width, height, number) in enumerate(PICTURES):
        ramp = np.linspace(40, 200, width)[None, :, None] + np.linspace(0, 30, height)[:, None, None]
        for index in range(number):
            folder = root / f"c{category}" / ("train/good" if index % 2 else "test/dent")
            folder.mkdir(parents=True, exist_ok=True)
            noise = rng.normal(0, 2.2, (height, width, 3))
            path = folder / f"{index:03d}.png"
            Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8)).save(path, compress_level=1)
            total += path.stat().st_size
    return total / 1e6


@dataclass(frozen=True, slots=True)
class Run:
    """What a contender took: seconds on the clock, peak memory in MB, CPU seconds in all and of its main thread."""

    seconds: float
    peak: float
    cpu: float
    main: float

    def __str__(self) -> str:
        return f"{self.seconds:8.2f} s   CPU {self.cpu:6.2f} s   peak {self.peak:5.0f} MB"


def measure(code: str, root: Path, out: Path) -> Run:
    """Run a contender in a process of its own."""
    command = [sys.executable, "-c", PREAMBLE + code + EPILOGUE, str(root), str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    return Run(*json.loads(done.stdout.strip().splitlines()[-1]))


def best_of(contenders: dict[str, str], root: Path, folder: Path, rounds: int) -> dict[str, Run]:
    """Return each contender's fewest seconds and largest peak, rounds taken in turn."""
    results: dict[str, list[Run]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, code in contenders.items():
            results[name].append(measure(code, root, folder / "out.parquet"))
    return {
        name: Run(
            min(run.seconds for run in runs),
            max(run.peak for run in runs),
            min(run.cpu for run in runs),
            min(run.main for run in runs),
        )
        for name, runs in results.items()
    }


def draw_stub_tree(root: Path, queries: int) -> None:
    """Draw 2x2 pixels for each image, no two files alike."""
    for category in range(20):
        for folder, number in (("train/good", 200), ("test/good", queries // 40), ("test/dent", queries // 40)):
            place = root / f"c{category:02d}" / folder
            place.mkdir(parents=True)
            for index in range(number):
                text = PngInfo()
                text.add_text("name", f"{category} {folder} {index}")
                STUB.save(place / f"{index:04d}.png", pnginfo=text)


def measure_many(folder: Path, cores: int) -> None:
    """Print what builds and checks of many tiny pairs take."""
    for pairs in MANY_PAIRS:
        tree, out = folder / f"stubs-{pairs}", folder / f"{pairs}.parquet"
        draw_stub_tree(tree, pairs)
        for verb, code in (("build", OURS), ("check", CHECK)):
            run = measure(code.format(workers=cores, max_pixels=None, limit=None), tree, out)
            print(f"  {f'lad {verb}, {pairs:,} pairs':<40}{run}", flush=True)


def main() -> None:
    """Print times, peaks and the ratios between them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        megabytes = draw_tree(folder / "tree")
        cores = len(os.sched_getaffinity(0))
        embed = OURS.format(workers=cores, max_pixels=None, limit=None)
        contenders = {
            "lad build, embed": embed,
            "datasets.from_generator().to_parquet": DATASETS,
            "plain pyarrow writer": PYARROW.replace("{options}", ""),
            "plain pyarrow writer, tuned": PYARROW.replace("{options}", TUNED),
        }
        times = best_of(contenders, folder / "tree", folder, ROUNDS)
        shrink = {
            f"lad build, shrink, {workers} worker": OURS.format(
                workers=workers, max_pixels=401_408, limit=SHRUNK_PAIRS
            )
            for workers in (1, 2)
        }
        times |= best_of(shrink, folder / "tree", folder, SHRINK_ROUNDS)
        report(times, megabytes, cores)
        measure_many(folder, cores)


def report(runs: dict[str, Run], megabytes: float, cores: int) -> None:
    """Print times, peaks and ratios."""
    print(f"{megabytes:.0f} MB of PNG (shrinking: {SHRUNK_PAIRS} pairs of it), {cores} cores; best of a few rounds")
    for name, run in runs.items():
        print(f"  {name:<40}{run}")
    ours = runs["lad build, embed"]
    datasets = runs["datasets.from_generator().to_parquet"]
    print(
        f"embedding: {datasets.seconds / ours.seconds:.2f} times as fast as datasets (goal: 3), "
        f"with {datasets.cpu / ours.cpu:.2f} times fewer CPU seconds"
    )
    for name in ("plain pyarrow writer", "plain pyarrow writer, tuned"):
        ratio = ours.seconds / runs[name].seconds
        print(f"embedding: {ratio:.2f} times the time of a {name} (goal for the plain one: 1.5)")
    one, two = (runs[f"lad build, shrink, {workers} worker"] for workers in (1, 2))
    print(f"shrinking: 2 workers {one.seconds / two.seconds:.2f} times as fast as one (goal: 1.7)")
    if one.seconds > BUSY * one.cpu:
        print("shrinking: the machine was busy: one worker did not get a core to itself, so the times tell little")
    bound = one.cpu / (one.main + (one.cpu - one.main) / 2)
    print(
        f"shrinking: {one.main / one.cpu:.1%} of the CPU seconds are the main thread's, the bound is {bound:.2f} times"
    )
    print(f"peak memory: {max(run.peak for name, run in runs.items() if 'lad' in name):.0f} MB (goal: 500)")


if __name__ == "__main__":
    main()
