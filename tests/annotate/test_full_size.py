"""A full-size run: every test image of MVTec AD and VisA, as stubs with the real names and counts."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.memory import PEAK_MB

if TYPE_CHECKING:
    from collections.abc import Callable

CODE = (
    PEAK_MB
    + """
import json, sys, time
from pathlib import Path
from lad_datasets.annotate.annotate import annotate_with_templates
from lad_datasets.annotate.subjects import find_subjects
from lad_reasoner.support.findings import Findings
trees, out, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) or None
start = time.monotonic()
findings = Findings(quiet=True)
roots = {"mvtec_ad": trees / "mvtec", "visa": trees / "visa"}
subjects = find_subjects(roots, mmad_root=trees / "mmad", findings=findings, limit=limit)
summary = annotate_with_templates(subjects, out, findings)
peak = peak_mb()
print(json.dumps({"peak_mb": peak, "seconds": time.monotonic() - start, **summary}))
"""
)


def draw_stubs(root: Path, facts: Path, tiny_png: Callable[[int], bytes]) -> None:
    """Draw both trees with every name of the real ones; each image is its own few bytes, and MMAD knows them all."""
    number, entries = 0, {}

    def stub(path: Path) -> None:
        nonlocal number
        number += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiny_png(number))

    def know(key: str, *, anomalous: bool) -> None:
        asked = {"Question": "Any defect?", "Options": {"A": "Yes.", "B": "No."}, "type": "Anomaly Detection"}
        text = {
            "Question": "How does it look?",
            "Answer": "A",
            "Options": {"A": "x" * 300},
            "type": "Defect Description",
        }
        entries[key] = {
            "conversation": [asked | {"Answer": "A" if anomalous else "B"}, *([text] if anomalous else [])]
        }

    with (facts / "mvtec_counts.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            for index in range(int(row["count"]) if row["split"] == "test" else 1):
                folder = root / "mvtec" / row["category"] / row["split"] / row["defect"]
                stub(folder / f"{index:03d}.png")
                if row["split"] == "test":
                    key = f"DS-MVTec/{row['category']}/image/{row['defect']}/{index:03d}.png"
                    know(key, anomalous=row["defect"] != "good")
                    if row["defect"] != "good":
                        stub(
                            root / "mvtec" / row["category"] / "ground_truth" / row["defect"] / f"{index:03d}_mask.png"
                        )
    (root / "visa" / "split_csv").mkdir(parents=True)
    split = (facts / "visa_1cls.csv").read_text()
    (root / "visa" / "split_csv" / "1cls.csv").write_text(split)
    for row in csv.DictReader(split.splitlines()):
        stub(root / "visa" / row["image"])
        if row["split"] == "test":
            folder = "good" if row["label"] == "normal" else "bad"
            know(f"VisA/{row['object']}/test/{folder}/{Path(row['image']).name}", anomalous=folder == "bad")
        if row["mask"]:
            stub(root / "visa" / row["mask"])
    (root / "mmad").mkdir()
    (root / "mmad" / "mmad.json").write_text(json.dumps(entries))


@pytest.mark.slow
def test_every_test_image_of_both_datasets_in_minutes_with_constant_memory(
    shared_data: Path, tmp_path: Path, make_png: Callable[[int], bytes]
) -> None:
    draw_stubs(tmp_path, shared_data / "facts", make_png)

    def run(name: str, limit: int) -> dict[str, float]:
        command = [sys.executable, "-c", CODE, str(tmp_path), str(tmp_path / name), str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        result: dict[str, float] = json.loads(done.stdout)
        return result

    small, whole = run("small", 100), run("whole", 0)
    lines = (tmp_path / "whole" / "annotations.jsonl").read_text().splitlines()
    subjects = Counter(json.loads(line)["subject"].split("/")[0] for line in lines if '"topic": "detection"' in line)
    assert subjects == {"mvtec_ad": 1725, "visa": 2162}
    cost = f"{whole['seconds']:.0f} s, peak {whole['peak_mb']:.0f} MB ({small['peak_mb']:.0f} for 100 images)"
    print(f"{len(lines)} pairs, {cost}")
    assert whole["seconds"] < 300
    assert whole["peak_mb"] < 400
    assert whole["peak_mb"] < 1.3 * small["peak_mb"]
