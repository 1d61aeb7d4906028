"""The bench for a GPU runs as a whole on a CPU with the tiny shape, and measures the published model's shape."""

from __future__ import annotations

import json
import time

import pytest
from tests.bench import gpu
from tests.bench.gpu_figures import SIZES, Bench
from tests.bench.gpu_inputs import build_network

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.frameworks

#: Of Qwen2.5-VL-3B-Instruct: the total_size of its weights' index, 7,509,245,952 bytes, at two bytes each.
PARAMETERS = 3_754_622_976


def test_the_shape_is_that_of_the_published_model(tmp_path):
    from lad_rehearsal.rehearse.tiny_model import make_model

    make_model("qwen2_5_vl", tmp_path / "model")
    network = build_network(tmp_path / "model", "3b", "meta", torch.bfloat16)
    assert sum(weight.numel() for weight in network.parameters()) == PARAMETERS


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path, capsys):
    assert gpu.main(["--shape", "tiny", "--device", "cpu", "--json", str(tmp_path / "out.json")]) == 0
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    figures = {figure["name"]: figure for figure in report["figures"]}
    assert not report["failed"]
    update = 512 * figures["GRPO micro step"]["measured"] + figures["GRPO optimizer step"]["measured"]
    assert figures["GRPO update"]["measured"] == pytest.approx(update)
    assert "2 of 512 micro steps" in figures["GRPO update"]["note"]
    for name in ("SFT step", "lad predict, batch 2", "GRPO log-probabilities"):
        assert figures[name]["measured"] > 0
    for name in ("SFT step", "GRPO update", "lad predict, batch 2"):
        memory = figures[f"{name}, peak memory"]
        assert memory["measured"] is None
        assert bool(memory["estimated"]) == ("lad predict" not in name)
    assert "not measured" in capsys.readouterr().out


def test_nothing_runs_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 0
    assert capsys.readouterr().out == "not run: no GPU here\n"


def test_a_part_that_fails_leaves_the_others(tmp_path, capsys):
    def fail(_bench: Bench) -> None:
        raise torch.OutOfMemoryError("too large")

    bench = Bench(SIZES["tiny"], "tiny", "cpu", tmp_path, end=time.monotonic() + 60)
    bench.run("first", fail)
    bench.run("second", lambda shared: shared.add("a figure", 3.0, "GiB", 2.0))
    assert bench.failed == {"first": "OutOfMemoryError: too large"}
    assert "a figure" in capsys.readouterr().out
    assert str(bench.figures[0]).split()[2:5] == ["3.00", "2.00", "1.50"]


def test_work_stops_when_the_time_is_over(tmp_path):
    bench = Bench(SIZES["tiny"], "tiny", "cpu", tmp_path, end=time.monotonic() - 1)
    calls: list[int] = []
    assert bench.times(5, lambda: calls.append(1)) == len(calls) == 1
    bench.run("late", lambda shared: shared.add("a figure", 1.0, "s"))
    assert bench.failed == {"late": "no time was left"}
