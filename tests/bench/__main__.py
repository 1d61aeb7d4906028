"""Run the benchmarks one after the other: `make bench`, or `python -m tests.bench grpo parquet` for some of them.

Each prints ratios measured side by side in one run: a figure of seconds alone says more about the machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHES = {path.stem.removeprefix("bench_"): path for path in sorted(Path(__file__).parent.glob("bench_*.py"))}


def main(names: list[str]) -> int:
    """Run the named benchmarks, all by default; return how many failed."""
    if unknown := [name for name in names if name not in BENCHES]:
        print(f"error: no benchmark {unknown[0]}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or BENCHES:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(BENCHES[name])], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
