"""verl's own trainer, on the CPU runtime: rollout and trainer agree, checkpoints are models.

tests/trainers has the run that goes on from its checkpoint (test_kill_resume.py), and two nodes (test_cluster_run.py).
Starts the real thing, ``python -m verl.trainer.main_ppo``, with the base that ships with the demo on drawn pairs.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

torch = pytest.importorskip("torch")
pytest.importorskip("verl")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from lad_reasoner.models.merge import merge_checkpoint  # noqa: E402
from lad_reasoner.pairs.schema import Image, Pair, pair_schema  # noqa: E402
from lad_reasoner.support.processes import (  # noqa: E402
    end_run,
    run_folder,
    run_processes,
)
from lad_reasoner.training.runtimes import RolloutEngine  # noqa: E402
from lad_reasoner.training.verl.hydra import as_words  # noqa: E402
from lad_rehearsal.demo.tiny import BASE, IMAGE_SIZE  # noqa: E402
from lad_rehearsal.verl_cpu.runtime import cpu_environment, cpu_overrides  # noqa: E402

pytestmark = [pytest.mark.frameworks, pytest.mark.slow]

PROMPTS, SAMPLES = 4, 4


def draw(seed: int) -> Image:
    """Squares in a 3 x 3 grid, as the demo's pictures have."""
    dice, picture = random.Random(seed), Pillow.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "white")
    for place in range(9):
        x, y = place % 3 * 28, place // 3 * 28
        colour = tuple(dice.randrange(256) for _ in range(3))
        ImageDraw.Draw(picture).rectangle((x + 6, y + 6, x + 20, y + 20), fill=colour)
    stream = BytesIO()
    picture.save(stream, "PNG")
    return Image(stream.getvalue(), f"{seed}.png", str(seed))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    rows = []
    for number in range(12):
        odd = number % 2 == 1
        label, kind = ("yes", "logical") if odd else ("no", "good")
        pair = Pair(f"drawn/{number}", "drawn", "box", label, kind, kind, [draw(number)], draw(number + 100 * odd))
        rows.append(pair.to_row())
    pq.write_table(pa.Table.from_pylist(rows, schema=pair_schema()), path)
    return path


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward that untrained responses earn in part: their length, so that the policy moves."""
    path = tmp_path_factory.mktemp("reward") / "reward.py"
    path.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):\n"
        "    return {'score': (len(solution_str) % 17) / 17, 'words': float(len(solution_str.split()))}\n",
        encoding="utf-8",
    )
    return path


def overrides(folder: Path, pairs: Path, reward: Path, *, steps: int, ranks: int) -> dict[str, object]:
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    micro = PROMPTS * SAMPLES // ranks
    return {
        "algorithm.adv_estimator": "grpo",
        "data.train_files": str(pairs),
        "data.val_files": str(pairs),
        "data.prompt_key": "problem",
        "data.custom_cls.path": "pkg://lad_reasoner.training.verl.dataset",
        "data.custom_cls.name": "PairDataset",
        "data.max_prompt_length": 128,
        "data.max_response_length": 24,
        "data.train_batch_size": PROMPTS,
        "actor_rollout_ref.model.path": str(BASE),
        f"{actor}.optim.lr": 1e-3,
        f"{actor}.ppo_mini_batch_size": PROMPTS,
        f"{actor}.ppo_micro_batch_size_per_gpu": micro,
        f"{actor}.use_kl_loss": True,
        f"{actor}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": micro,
        f"{rollout}.log_prob_micro_batch_size_per_gpu": micro,
        f"{rollout}.n": SAMPLES,
        "reward.custom_reward_function.path": str(reward),
        "trainer.logger": ["console", "file"],
        "trainer.val_before_train": False,
        "trainer.save_freq": steps,
        "trainer.total_epochs": 10,
        "trainer.total_training_steps": steps,
        "trainer.default_local_dir": str(folder / "checkpoints"),
    }


def train(
    folder: Path,
    pairs: Path,
    reward: Path,
    *,
    steps: int,
    ranks: int = 1,
    engine: RolloutEngine = "transformers",
    **extra: object,
) -> list[dict[str, Any]]:
    """Run verl; return what it logged at each step."""
    log = folder / f"{steps}.jsonl"
    own = overrides(folder, pairs, reward, steps=steps, ranks=ranks) | extra
    words = as_words(own | cpu_overrides(ranks=ranks, engine=engine))
    with run_folder() as ray, (folder / "verl.log").open("w") as output:
        environment = os.environ | cpu_environment(ray, engine=engine) | {"VERL_FILE_LOGGER_PATH": str(log)}
        command = [sys.executable, "-m", "verl.trainer.main_ppo", *words]
        try:
            done = subprocess.run(
                command, env=environment, cwd=folder, stdout=output, stderr=output, check=False, start_new_session=True
            )
        finally:
            end_run(ray)
        assert run_processes(ray) == []
    assert done.returncode == 0, (folder / "verl.log").read_text()[-3000:]
    return [json.loads(line)["data"] for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory, pairs: Path, reward: Path) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("one")
    return folder, train(folder, pairs, reward, steps=3)


def assert_agreement(steps: list[dict[str, Any]]) -> None:
    # The policy has moved: a rollout that kept its first weights would be found out.
    assert steps[-1]["actor/kl_loss"] > 1e-2
    assert [step["training/rollout_probs_diff_max"] < 1e-3 for step in steps] == [True] * len(steps)
    assert steps[-1]["training/off_policy/trajectory_staleness/max"] == 0


def test_trainer_and_rollout_agree(one_rank: tuple[Path, list[dict[str, Any]]]) -> None:
    _, steps = one_rank
    assert len(steps) == 3
    assert_agreement(steps)


def test_parts_of_the_reward_are_logged(one_rank: tuple[Path, list[dict[str, Any]]]) -> None:
    _, steps = one_rank
    for step in steps:
        assert step["reward/score"] == pytest.approx(step["critic/score/mean"], abs=1e-6)
        assert step["reward/words"] > 0


def test_checkpoint_is_a_model_with_the_trainers_weights(one_rank: tuple[Path, list[dict[str, Any]]]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = one_rank[0] / "checkpoints" / "global_step_3" / "actor"
    saved = AutoModelForImageTextToText.from_pretrained(folder / "huggingface", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder / "huggingface")
    # verl's own shard into the base's architecture: the same weights by another way, and the base's configuration.
    trained = AutoModelForImageTextToText.from_pretrained(BASE, dtype=torch.float32).eval()
    untrained = {name: weight.clone() for name, weight in trained.named_parameters()}
    shard = torch.load(folder / "model_world_size_1_rank_0.pt", weights_only=False)
    trained.load_state_dict({name: getattr(weight, "_local_tensor", weight) for name, weight in shard.items()})
    assert any(not torch.equal(weight, untrained[name]) for name, weight in trained.named_parameters())
    image = Pillow.open(BytesIO(draw(1).data or b""))
    inputs = processor(
        text=["<|vision_start|><|image_pad|><|vision_end|> yes or no"], images=[image], return_tensors="pt"
    )
    with torch.no_grad():
        torch.testing.assert_close(saved(**inputs).logits, trained(**inputs).logits, atol=1e-5, rtol=0)


def test_adapters_of_two_ranks_reach_the_rollout(tmp_path: Path, pairs: Path, reward: Path) -> None:
    lora = {
        "actor_rollout_ref.model.lora_rank": 8,
        "actor_rollout_ref.rollout.load_format": "safetensors",
        "actor_rollout_ref.actor.optim.lr": 1e-2,
    }
    steps = train(tmp_path, pairs, reward, steps=3, ranks=2, **lora)
    assert len(steps) == 3
    assert_agreement(steps)
    shards = sorted(path.name for path in (tmp_path / "checkpoints/global_step_3/actor").glob("model_*.pt"))
    assert shards == ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"]


def test_vllm_samples_with_the_trainers_weights(tmp_path: Path, pairs: Path, reward: Path) -> None:
    pytest.importorskip("vllm")
    limits = {"actor_rollout_ref.rollout.max_model_len": 128 + 24, "actor_rollout_ref.rollout.dtype": "float32"}
    steps = train(tmp_path, pairs, reward, steps=3, engine="vllm", **limits)
    assert len(steps) == 3
    assert_agreement(steps)
    merge_checkpoint(tmp_path / "checkpoints" / "global_step_3", tmp_path / "merged", dtype="float32")
