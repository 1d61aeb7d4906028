"""Scoring 7 models on the paper's 1,136 pairs with 10,000 resamples: every category and defect, pooled and macro.

Run: python tests/bench/bench_score.py
Prints seconds for all seven together, and processor seconds, for a busy machine. Each reply has a score, so the
intervals of the AUROC are part of it.
"""

from __future__ import annotations

import json
import time

import numpy as np

from lad_reasoner.evaluation.outcomes import JudgedPair, ScoredReply, System
from lad_reasoner.evaluation.paper import LOCO_TEST_COUNTS
from lad_reasoner.evaluation.score import score_system
from lad_reasoner.evaluation.statistics import RESAMPLES
from lad_reasoner.pairs.reader import Truth


def draw_outcomes(seed: int) -> System:
    """Return a model that is right about two times in three, over the counts of MVTec LOCO AD."""
    rng = np.random.default_rng(seed)
    rows = []
    for category, (good, logical, _) in LOCO_TEST_COUNTS.items():
        for index in range(good + logical):
            label, kind = ("no", "good") if index < good else ("yes", "logical")
            path = f"{category}/test/{kind}/{index:03}.png"
            defect = "good" if kind == "good" else f"defect_{index % 18}"
            score = float(np.clip(rng.normal(0.6 if label == "yes" else 0.45, 0.2), 0, 1))
            reply = ScoredReply("yes" if score > 0.5 else "no", well_formed=True, score=score, source="answer_token")
            rows.append(JudgedPair(Truth(path, "mvtec_loco", category, label, kind, defect, path), (reply,)))
    return System(f"model-{seed}", tuple(rows))


def main() -> None:
    """Measure and print."""
    systems = [draw_outcomes(seed) for seed in range(7)]
    start, busy = time.perf_counter(), time.process_time()
    runs = [score_system(system, "paper") for system in systems]
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - busy
    assert all(run.pooled.pairs == 1136 for run in runs)
    result = {"models": 7, "pairs": 1136, "resamples": RESAMPLES}
    print(json.dumps({**result, "seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2)}, indent=2))


if __name__ == "__main__":
    main()
