"""Every override that we write is accepted by the installed verl's own configuration, without Ray."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.easyr1.keys import read_snapshot
from lad_reasoner.training.verl.hydra import as_words, lay_over
from lad_reasoner.training.verl.overrides import run_overrides, translate

pytestmark = pytest.mark.frameworks

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted([*(REPOSITORY / "examples" / "grpo").glob("*.yaml"), REPOSITORY / "examples" / "demo" / "grpo.yaml"])


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
    overrides = lay_over(translate(config, keys), run_overrides(config, tmp_path))
    composed = compose(overrides)
    # verl turns these into its dataclasses: unknown names and impossible values end there.
    actor = omega_conf_to_dataclass(composed.actor_rollout_ref.actor)
    world = config["trainer.nnodes"] * config["trainer.n_gpus_per_node"]
    actor.validate(world, composed.data.train_batch_size, composed.actor_rollout_ref.model)
    rollout = omega_conf_to_dataclass(composed.actor_rollout_ref.rollout)
    assert rollout.n == config["worker.rollout.n"]
    assert rollout.limit_images == config["worker.rollout.limit_images"]
    assert actor.optim.lr == config["worker.actor.optim.lr"]


def test_an_override_is_marked_as_new_exactly_where_verl_lacks_the_key(tmp_path):
    from omegaconf import OmegaConf

    keys = read_snapshot()
    config = load_config([f"config={EXAMPLES[0]}"], keys)
    stock = compose({"actor_rollout_ref.rollout.name": "vllm"})
    for name in lay_over(translate(config, keys), run_overrides(config, tmp_path)):
        if name.startswith("hydra."):
            continue
        parent, _, last = name.removeprefix("++").rpartition(".")
        node = OmegaConf.select(stock, parent) if parent else stock
        known = node is not None and last in node
        # override_config is in verl, but only what is new may be laid into it.
        assert name.startswith("++") is not known or name == "++actor_rollout_ref.model.override_config", name


def test_the_reward_manager_is_verls_own_kind():
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
    from verl.trainer.ppo.reward import resolve_reward_manager_cls

    config = load_config([f"config={EXAMPLES[0]}"])
    manager = resolve_reward_manager_cls(compose(translate(config, read_snapshot())))
    assert issubclass(manager, RewardManagerBase)


def test_the_sampler_is_verls_own_kind_and_sums_by_key():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    from lad_reasoner.training.verl.replay_buffer import RewardReplayBuffer, sum_by_key

    assert issubclass(RewardReplayBuffer, ReplayBuffer)
    sums, counts = sum_by_key([{"a": 1.0, "b": 0.5}, {"a": 3.0}])
    assert (sums, counts) == ({"a": 4.0, "b": 0.5}, {"a": 2, "b": 1})
