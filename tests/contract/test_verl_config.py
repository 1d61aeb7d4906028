"""Every override that we write is accepted by the installed verl's own configuration, without Ray."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.easyr1.keys import read_snapshot
from lad_reasoner.training.run.plan import run_overrides
from lad_reasoner.training.verl.hydra import as_words, lay_over
from lad_reasoner.training.verl.overrides import translate

pytestmark = pytest.mark.frameworks

REPOSITORY = Path(__file__).resolve().parents[2]
PAPERS = REPOSITORY / "examples" / "grpo" / "qwen2_5_vl_3b_loco.yaml"
EXAMPLES = sorted([*(REPOSITORY / "examples" / "grpo").glob("qwen*"), REPOSITORY / "examples" / "demo" / "grpo.yaml"])


def compose(overrides: dict[str, object]):
    from hydra import compose, initialize_config_dir

    (package,) = find_spec("verl").submodule_search_locations
    with initialize_config_dir(config_dir=str(Path(package) / "trainer" / "config"), version_base=None):
        words = as_words({name: value for name, value in overrides.items() if not name.startswith("hydra.")})
        return compose("ppo_trainer", overrides=words)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_verl_accepts_the_translation_of_every_example(example, tmp_path):
    from verl.utils.config import omega_conf_to_dataclass

    keys = read_snapshot()
    config = load_config([f"config={example}"], keys)
    overrides = lay_over(translate(config), run_overrides(config, tmp_path))
    composed = compose(overrides)
    # verl turns these into its dataclasses: unknown names and impossible values end there.
    actor = omega_conf_to_dataclass(composed.actor_rollout_ref.actor)
    world = config["trainer.nnodes"] * config["trainer.n_gpus_per_node"]
    actor.validate(world, composed.data.train_batch_size, composed.actor_rollout_ref.model)
    rollout = omega_conf_to_dataclass(composed.actor_rollout_ref.rollout)
    assert rollout.n == config["worker.rollout.n"]
    media = {"image": config["worker.rollout.limit_images"], "video": 0}
    assert rollout.engine_kwargs["vllm"]["limit_mm_per_prompt"] == media
    assert actor.optim.lr == config["worker.actor.optim.lr"]


def test_an_override_is_marked_as_new_exactly_where_verl_lacks_the_key(tmp_path):
    from omegaconf import OmegaConf

    keys = read_snapshot()
    config = load_config([f"config={EXAMPLES[0]}"], keys)
    stock = compose({"actor_rollout_ref.rollout.name": "vllm"})
    for name in lay_over(translate(config), run_overrides(config, tmp_path)):
        if name.startswith("hydra."):
            continue
        parent, _, last = name.removeprefix("++").rpartition(".")
        node = OmegaConf.select(stock, parent) if parent else stock
        known = node is not None and last in node
        if name == "++actor_rollout_ref.model.override_config":
            assert known  # in verl, where only new keys can be added
        else:
            assert name.startswith("++") is not known, name


def test_the_reward_manager_is_verls_own_kind():
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
    from verl.trainer.ppo.reward import resolve_reward_manager_cls

    config = load_config([f"config={EXAMPLES[0]}"])
    manager = resolve_reward_manager_cls(compose(translate(config)))
    assert issubclass(manager, RewardManagerBase)


def test_the_sampler_is_verls_own_kind_and_sums_by_key():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    from lad_reasoner.training.verl.replay_buffer import RewardReplayBuffer, sum_by_key

    assert issubclass(RewardReplayBuffer, ReplayBuffer)
    sums, counts = sum_by_key([{"a": 1.0, "b": 0.5}, {"a": 3.0}])
    assert (sums, counts) == ({"a": 4.0, "b": 0.5}, {"a": 2, "b": 1})


@cache
def names_that_code_reads(folder: Path) -> frozenset[str]:
    """Every attribute that is loaded and every string that could be a key; a declared field is neither."""
    names: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return frozenset(names)


def verl_folder() -> Path:
    (package,) = find_spec("verl").submodule_search_locations
    return Path(package)


#: Where our dataset and replay buffer for verl read keys of their own.
OURS = REPOSITORY / "plugin" / "lad_reasoner" / "training" / "verl"
FREEZE = "worker.actor.model.freeze_vision_tower=true"


@pytest.mark.parametrize("words", [[], [FREEZE]], ids=["papers", "frozen"])
def test_some_code_reads_every_key_that_we_write(words, tmp_path):
    keys = read_snapshot()
    config = load_config([f"config={PAPERS}", *words], keys)
    written = lay_over(translate(config), run_overrides(config, tmp_path))
    read = names_that_code_reads(verl_folder()) | names_that_code_reads(OURS)
    unread = [name for name in written if name.rpartition(".")[2] not in read]
    assert [name for name in unread if not name.startswith("hydra.")] == []


def test_the_check_finds_a_key_that_verl_declares_and_never_reads():
    assert "freeze_vision_tower" in compose({"actor_rollout_ref.rollout.name": "vllm"}).actor_rollout_ref.actor
    assert "freeze_vision_tower" not in names_that_code_reads(verl_folder())


def test_a_frozen_vision_tower_is_not_trained():
    code = """
import torch
from verl.utils.device import get_device_name
import lad_reasoner.training.verl.frozen_vision as frozen
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.visual, self.text = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

FSDPEngineWithLMHead._build_module = lambda self: Model()
for backend in ("fsdp", "fsdp2"):
    engine = EngineRegistry._engines["language_model"][backend][get_device_name()]
    model = engine._build_module(object.__new__(engine))
    print(backend, [name for name, weight in model.named_parameters() if weight.requires_grad])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-2:] == [f"{name} ['text.weight', 'text.bias']" for name in ("fsdp", "fsdp2")]


def engine_of_easyr1(config) -> dict[str, object]:
    """What EasyR1's vllm_rollout_spmd.py gives to vLLM; `test_easyr1` holds this against its source."""
    rollout = {
        name.removeprefix("worker.rollout."): value for name, value in config.values.items() if "rollout" in name
    }
    length = config["data.max_prompt_length"] + config["data.max_response_length"]
    dtypes = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    lora = config["worker.actor.model.lora.rank"]
    return {
        "max_model_len": rollout["max_model_len"] or length,
        "max_num_batched_tokens": rollout["max_num_batched_tokens"],
        "enable_chunked_prefill": rollout["enable_chunked_prefill"],
        "gpu_memory_utilization": rollout["gpu_memory_utilization"],
        "tensor_model_parallel_size": rollout["tensor_parallel_size"],
        "enforce_eager": rollout["enforce_eager"],
        "disable_log_stats": rollout["disable_log_stats"],
        "dtype": dtypes[rollout["dtype"]],
        "seed": rollout["seed"],
        "images": rollout["limit_images"] or None,
        "load_format": "safetensors" if lora else "dummy",
    }


def corrections() -> Callable[[object], None]:
    """verl's own `_validate_configs`; its module cannot be imported without a GPU build of vLLM."""
    source = (verl_folder() / "workers/rollout/vllm_rollout/vllm_async_server.py").read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    module = ast.Module([node for node in functions if node.name == "_validate_configs"], type_ignores=[])
    names: dict[str, Any] = {
        "logger": logging.getLogger(),
        "get_max_position_embeddings": lambda config: config.max_position_embeddings,
    }
    exec(compile(module, "verl", "exec"), names)  # noqa: S102 - verl's own source
    return names["_validate_configs"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_both_trainers_end_up_with_the_same_engine_settings(example):
    from verl.utils.config import omega_conf_to_dataclass

    keys = read_snapshot()
    config = load_config([f"config={example}"], keys)
    rollout = omega_conf_to_dataclass(compose(translate(config)).actor_rollout_ref.rollout)
    # verl's own server fills in and corrects the settings; the model is Qwen2.5-VL-3B's size of context.
    model = SimpleNamespace(hf_config=SimpleNamespace(max_position_embeddings=128_000))
    corrections()(SimpleNamespace(config=rollout, model_config=model))
    easyr1 = engine_of_easyr1(config)
    # Only the limit of videos differs: the rows have none, and vLLM reserves memory for them unless it is 0.
    images = rollout.engine_kwargs["vllm"]["limit_mm_per_prompt"].get("image")
    verl = {name: images if name == "images" else getattr(rollout, name) for name in easyr1}
    print("\n".join(f"{example.stem:32} {name:28} {easyr1[name]!s:12} {verl[name]}" for name in easyr1))
    assert verl == easyr1
