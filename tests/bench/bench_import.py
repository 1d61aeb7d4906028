"""Seconds that `import lad_reasoner` takes, compared to starting Python.

Run: python tests/bench/bench_import.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

PASSES = 15
STATEMENTS = {
    "python": "pass",
    "import lad_reasoner": "import lad_reasoner",
    "import lad_datasets": "import lad_datasets",
    "lad_reasoner.score_response": "import lad_reasoner; lad_reasoner.score_response('<answer>no</answer>', 'no')",
}


def seconds_of(statement: str) -> list[float]:
    """Return the seconds of each pass, shortest first."""
    passes = []
    for _ in range(PASSES):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        passes.append(time.perf_counter() - start)
    return sorted(passes)


def main() -> None:
    """Measure and print."""
    measured = {name: seconds_of(statement) for name, statement in STATEMENTS.items()}
    shown = {
        name: {"best": round(times[0], 3), "median": round(times[PASSES // 2], 3)} for name, times in measured.items()
    }
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
