"""`easyr1 rehearse` of shipped configs, with verl itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.trainers.conftest import FORMS, assert_parts_logged, write_pairs

from lad_reasoner.support.processes import run_processes
from lad_rehearsal.demo.tiny import BASE

torch = pytest.importorskip("torch")
pytest.importorskip("verl")

pytestmark = [pytest.mark.frameworks, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((REPOSITORY / "examples" / "grpo").glob("qwen*"))
PAPERS = REPOSITORY / "examples" / "grpo" / "qwen2_5_vl_3b_loco.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    train, val = (
        write_pairs(folder / "train.parquet", 96),
        write_pairs(folder / "val.parquet", 12, dataset="mvtec_loco"),
    )
    return [f"data.train_files={train}", f"data.val_files={val}"]


def rehearse(config: Path, out: Path, *words: str) -> tuple[dict[str, Any], str]:
    """Return the report and what was said meanwhile."""
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", "rehearse", f"config={config}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EASYR1_")}
    run = subprocess.run(
        [*command, *words, "--out", str(out), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=REPOSITORY,
    )
    assert run.returncode == 0, run.stderr
    left = [one for one in psutil.process_iter(["cmdline"]) if str(out) in " ".join(one.info["cmdline"] or [])]
    assert left == []
    return json.loads(run.stdout), run.stderr


def assert_rehearsed(report: dict[str, Any], steps: int = 2) -> None:
    trained = [step for step in report["steps"] if "reward" in step]
    assert [step["step"] for step in trained] == list(range(1, steps + 1))
    for step in trained:
        assert_parts_logged(step)
    assert_parts_logged(trained[-1], "val/")
    assert {"memory", "vLLM", "weights"} <= {gap["what"] for gap in report["not_covered"]}
    assert Path(report["checkpoint"]).name == f"global_step_{steps}"


def test_the_papers_config_learns_on_real_gradients(tmp_path: Path, data: list[str]) -> None:
    report, said = rehearse(PAPERS, tmp_path / "out", *data, "worker.actor.optim.lr=1e-3")
    assert_rehearsed(report)
    assert "step 1/2" in said
    # The tiny model answers in the template, so there is something to learn and the weights have moved.
    assert max(step["reward"] for step in report["steps"] if "reward" in step) > 0
    shard = torch.load(Path(report["checkpoint"]) / "actor" / "model_world_size_1_rank_0.pt", weights_only=False)
    from transformers import AutoModelForImageTextToText

    before = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "model", dtype=torch.float32).state_dict()
    moved = [
        name
        for name, weight in shard.items()
        if not torch.equal(getattr(weight, "_local_tensor", weight), before[name])
    ]
    assert len(moved) > len(shard) // 2
    changed = {change["key"]: change["now"] for change in report["changed"]}
    assert changed["trainer.n_gpus_per_node"] == 1
    assert "data.max_pixels" not in changed


def test_a_fault_that_only_the_run_shows_names_the_log(tmp_path: Path, data: list[str]) -> None:
    reward = tmp_path / "reward.py"
    # Passes the probes of `easyr1 check`, which runs without Ray, and fails in the trainer.
    reward.write_text(
        "import sys\n"
        "def score(rows, **_):\n"
        "    if 'ray' in sys.modules:\n"
        "        raise LookupError('no such judge')\n"
        "    return [{'overall': 0.0} for _ in rows]\n"
    )
    out = tmp_path / "out"
    words = [*data, f"worker.reward.reward_function={reward}:score", "trainer.val_before_train=false"]
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", "rehearse", f"config={PAPERS}", *words]
    run = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert run.returncode == 1, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: rehearsal, verl: exit code 1: ")
    assert "no such judge" in last
    assert f"See {out}/run/attempts/001/trainer.log" in last
    assert not run.stdout
    left = [one for one in psutil.process_iter(["cmdline"]) if str(out) in " ".join(one.info["cmdline"] or [])]
    assert left == []


def test_an_interrupt_leaves_no_process(tmp_path: Path, data: list[str]) -> None:
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", "rehearse", f"config={PAPERS}", *data]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EASYR1_")}
    record = tmp_path / "out" / "run" / "attempts" / "001" / "attempt.json"
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, env=environment, cwd=REPOSITORY, text=True
    ) as run:
        ray: list[psutil.Process] = []
        while run.poll() is None and not any("raylet" in process.name() for process in ray):
            time.sleep(0.5)
            if record.is_file():
                folder = Path(json.loads(record.read_text())["folder"])
                ray = run_processes(folder)
        assert ray, run.stderr
        run.terminate()
        said = run.communicate()[1]
    assert run.returncode == 130, said
    assert "interrupted" in said
    assert run_processes(folder) == []
    assert not record.exists()


@pytest.mark.rehearsal
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_shipped_config(example: Path, tmp_path: Path) -> None:
    form = next((form for name, form in FORMS.items() if name.removeprefix("grpo_") in example.stem), {})
    train = write_pairs(tmp_path / "train.parquet", 96, form=form)
    val = write_pairs(tmp_path / "val.parquet", 12, dataset="mvtec_loco", form=form)
    report, _ = rehearse(example, tmp_path / "out", f"data.train_files={train}", f"data.val_files={val}")
    if "choice" in form:  # a letter has no confusion matrix
        assert [step["step"] for step in report["steps"] if "reward" in step] == [1, 2]
    else:
        assert_rehearsed(report)


@pytest.mark.rehearsal
def test_the_demos_config(tmp_path: Path, data: list[str]) -> None:
    config = REPOSITORY / "examples" / "demo" / "grpo.yaml"
    report, _ = rehearse(config, tmp_path / "out", *data, f"worker.actor.model.model_path={BASE}")
    assert_rehearsed(report)
    assert "tokenizer and processor" not in {gap["what"] for gap in report["not_covered"]}


@pytest.mark.rehearsal
@pytest.mark.parametrize(
    ("name", "longest"), [("qwen2_5_vl_3b_loco.yaml", 1280 + 1024), ("qwen2_5_vl_3b_1x24gb_lora.sh", 1280 + 512)]
)
def test_vllm_samples_with_the_limits_of_the_gpu_run(name: str, longest: int, tmp_path: Path, data: list[str]) -> None:
    pytest.importorskip("vllm")
    report, _ = rehearse(REPOSITORY / "examples" / "grpo" / name, tmp_path / "out", *data, "--engine", "vllm")
    trained = [step for step in report["steps"] if "reward" in step]
    assert [step["step"] for step in trained] == [1, 2]
    settings = report["vllm_settings"]
    assert settings["max_model_len"] == str(longest)
    assert settings["max_num_batched_tokens"] == "8192"
    assert settings["limit_mm_per_prompt"] == '{"image": 2, "video": 0}'
    assert ("enable_lora" in settings) == ("lora" in name)
    assert "vLLM" not in {gap["what"] for gap in report["not_covered"]}
