"""A real file system that fills up at different moments: one sentence that names a file, and nothing left behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.annotate.conftest import Server, Trees
from tests.core.test_changed_files import Model, write_data

from lad_reasoner.commands.lad import main, run_app
from lad_reasoner.inference.predict import predict


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB. Mounting needs rights that a container may lack."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("LAD_API_KEY", "none")
    running = Server()
    running.server.handle_error = lambda *_: None  # a client that stops on a full disk drops its connections
    yield running
    running.close()


@pytest.fixture
def words(tmp_path: Path, server: Server) -> dict[str, list[str]]:
    """The command line of each verb that writes, without its output."""
    trees, data = Trees(tmp_path / "trees"), write_data(tmp_path / "pairs.parquet")
    predict(data, Model(), tmp_path / "run.jsonl")
    assert not exit_code(["annotate", *trees.arguments(), "--out", str(tmp_path / "qa")])
    (tmp_path / "grpo").mkdir()
    (tmp_path / "grpo" / "experiment_log.jsonl").write_text('{"step": 1, "reward": {"overall": 1.0}}\n')
    images = ["--mvtec", str(trees.mvtec), "--visa", str(trees.visa)]
    model = ["--model", "m", "--base-url", server.url]
    return {
        "grpo": ["build", "grpo", *images, "--recipe", "all"],
        "sft": ["build", "sft", "--annotations", str(tmp_path / "qa")],
        "annotate": ["annotate", *images],
        "annotate by a model": ["annotate", *images, *model],
        "predict": [str(data)],
        "report": ["report", str(tmp_path / "run.jsonl"), "--data", str(data), "--resamples", "9"],
        "plot": ["plot", str(tmp_path / "grpo")],
        "synthetic": ["build", "synthetic", "--test", "16", "--loco-test", "12", "--sft", "1"],
    }


def exit_code(words: list[str]) -> int:
    try:
        main(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


OUTPUTS = {"grpo": "x.parquet", "predict": "x.jsonl"}


@pytest.mark.parametrize("free", [0, 3])
@pytest.mark.parametrize(
    "verb", ["grpo", "sft", "annotate", "annotate by a model", "predict", "report", "plot", "synthetic"]
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing_empty(verb, free, words, small_disk, capfd) -> None:
    with (small_disk / "filling").open("wb", buffering=0) as filling:
        filling.write(b"x" * ((16 - free) * 4096))
    out = small_disk / OUTPUTS.get(verb, "out")
    capfd.readouterr()
    if verb == "predict":
        code = run_app(lambda: predict(Path(*words[verb]), Model(), out), debug=False)
    else:
        code = exit_code([*words[verb], "--out", str(out)])
    said = capfd.readouterr().err
    left = [path for path in small_disk.rglob("*") if path.is_file() and path.name != "filling"]
    if code == 0:  # it fitted
        assert left
        return
    assert code == 1
    assert "Traceback" not in said
    assert "internal error" not in said
    assert "no space left" in said.lower()
    assert str(small_disk) in said.splitlines()[-1]
    assert [path.name for path in left if path.stat().st_size == 0 or path.suffix in {".tmp", ".lock"}] == []
