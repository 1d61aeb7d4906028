"""The report at full size: 1,568 pairs (all of MVTec LOCO AD's test set) and four models; built, opened, filtered.

Run: python tests/bench/bench_report.py [--pairs 1568]
Prints seconds of the build, of the scores alone, and of opening the page in Chromium until the gallery counts its
pairs; and the milliseconds of five filters, layout included. Opened and filtered five times: the best of each counts,
since a busy machine only adds. Images are drawn, 84 pixels wide: decoding real ones comes on top (docs/report.md).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.report.conftest import draw_pairs, write_pairs, write_predictions

from lad_reasoner.report.content import read_content
from lad_reasoner.report.page import ReportOptions, write_report

MODELS = ("base", "sft", "grpo", "sft-grpo")
TRIES = 5

#: Sets filters one after another and measures each, layout included, in milliseconds.
FILTER = """
return [["answer", "wrong"], ["category", "pushpins"], ["category", ""], ["order", "split"], ["run", "3"]].map(
  ([id, value]) => {
    const field = document.getElementById(id);
    const start = performance.now();
    field.value = value;
    field.dispatchEvent(new Event("change"));
    document.body.getBoundingClientRect();
    return performance.now() - start;
  });
"""


def build(folder: Path, pairs: int) -> dict[str, float]:
    """Write the report and return seconds."""
    data = write_pairs(folder / "pairs.parquet", draw_pairs(pairs))
    runs = [write_predictions(folder / f"{name}.jsonl", data, seed=seed) for seed, name in enumerate(MODELS)]
    start, busy = time.perf_counter(), time.process_time()
    content = read_content(runs, data, "all")
    scored = time.perf_counter()
    write_report(content, folder / "out", ReportOptions())
    return {
        "build_seconds": time.perf_counter() - start,
        "of_which_scores": scored - start,
        "build_cpu_seconds": time.process_time() - busy,
    }


def open_browser() -> Any:
    """Return a headless Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def measure_page(index: Path, pairs: int) -> dict[str, float]:
    """Open the page and filter it."""
    browser = open_browser()
    opened, filtered = [], []
    try:
        for _ in range(TRIES):
            browser.get("about:blank")
            start = time.perf_counter()
            browser.get(index.as_uri())
            assert int(browser.find_element("css selector", "#count").text.split()[0]) == pairs
            opened.append(time.perf_counter() - start)
            filtered.append(browser.execute_script(FILTER))
    finally:
        browser.quit()
    slowest = max(min(tries) for tries in zip(*filtered, strict=True))
    return {"open_seconds": min(opened), "slowest_filter_ms": slowest}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1568)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lad-bench-") as name:
        folder = Path(name)
        result = build(folder, words.pairs)
        if shutil.which("chromium") and shutil.which("chromedriver"):
            result |= measure_page(folder / "out" / "index.html", words.pairs)
        else:
            print("no Chromium here: the page was not opened", file=sys.stderr)
    print(json.dumps({"pairs": words.pairs, "models": len(MODELS)} | {k: round(v, 2) for k, v in result.items()}))


if __name__ == "__main__":
    main()
