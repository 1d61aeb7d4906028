"""Writers that race and writers that are killed; bench_locks.py does the same, many times and with every verb."""

from __future__ import annotations

import subprocess
import sys


def test_races_and_kills_lose_nothing(repository) -> None:
    verbs = ["sft", "annotate", "annotate-model", "loco"]
    words = ["--pairs", "4", "--kills", "4", "--verbs", *verbs]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_locks", *words],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert sum(int(count) for count, _ in counts) == 8
    assert all(outcome.startswith(tuple(verbs)) for _, outcome in counts)
