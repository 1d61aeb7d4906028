"""Our configs and reward file against EasyR1's own code, in a checkout that EASYR1_HOME names.

Its code is run in a process of its own, because it is imported as ``verl`` like the other trainer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lad_reasoner.trainers.config import load_config
from lad_reasoner.trainers.grammar import read_snapshot, read_source

pytestmark = pytest.mark.easyr1

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted([*(REPOSITORY / "examples" / "grpo").glob("*.yaml"), REPOSITORY / "examples" / "demo" / "grpo.yaml"])


@pytest.fixture(scope="module")
def easyr1_home() -> Path:
    home = os.environ.get("EASYR1_HOME")
    if not home or not (Path(home) / "verl" / "trainer" / "config.py").is_file():
        pytest.skip("set EASYR1_HOME to a checkout of hiyouga/EasyR1 (commit in REQUIRED_EASYR1)")
    return Path(home)


def run_in_easyr1(home: Path, code: str, *arguments: str) -> str:
    """Run code with EasyR1's ``verl`` first on the path; skip where its own imports fail in this environment."""
    paths = os.pathsep.join(filter(None, (str(home), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", UNINSTALLED + code, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False)
    if run.returncode and ("ImportError" in run.stderr or "ModuleNotFoundError" in run.stderr):
        pytest.skip(f"EasyR1 does not import here: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr
    return run.stdout.strip().splitlines()[-1]


def test_the_snapshot_of_keys_is_that_of_the_checkout(easyr1_home):
    assert read_source(easyr1_home / "verl") == read_snapshot()


#: EasyR1 imports its rollout engine even where only its config is asked for; nothing here calls it.
UNINSTALLED = """
import importlib.abc, importlib.machinery, importlib.util, sys
from unittest.mock import MagicMock
class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "vllm" else None
    def create_module(self, spec):
        return MagicMock(name=spec.name, __path__=[], __spec__=spec)
    def exec_module(self, module): ...
if importlib.util.find_spec("vllm") is None:
    import transformers
    sys.meta_path.append(Absent())
"""

ACCEPT = """
import json, sys
from omegaconf import OmegaConf
from verl.trainer.config import PPOConfig
config = OmegaConf.merge(OmegaConf.structured(PPOConfig()), OmegaConf.load(sys.argv[1]))
config = OmegaConf.to_object(config)
config.deep_post_init()
print(json.dumps(config.to_dict()))
"""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_ppoconfig_accepts_every_example_and_reads_what_we_read(easyr1_home, example):
    theirs = json.loads(run_in_easyr1(easyr1_home, ACCEPT, str(example)))
    ours = load_config([f"config={example}"])
    for name, value in ours.values.items():
        node = theirs
        for part in name.split("."):
            node = node[part]
        if name == "worker.reward.reward_function":
            node = f"{node}:{theirs['worker']['reward']['reward_function_name']}"
        if name in {"data.train_files", "data.val_files"}:
            continue  # EasyR1 leaves them relative
        assert node == value, name


CALL = """
import json, sys
from verl.workers.reward.config import RewardConfig
from verl.workers.reward.function import AutoRewardManager
import torch
from verl.protocol import DataProto
import numpy as np
class Tokenizer:
    def decode(self, ids, skip_special_tokens): return "".join(chr(i) for i in ids.tolist())
options = {"structure_weight": 0.5, "naming_weight": 0.2, "overlong_weight": 1.0, "overlong_limit": 60}
config = RewardConfig(reward_function=sys.argv[1], reward_function_kwargs=options)
config.post_init()
manager = AutoRewardManager(config, Tokenizer())
texts = ["<think> a pin is missing </think><answer> yes </answer>", "<answer> no </answer>"]
width = max(map(len, texts))
responses = torch.tensor([[*map(ord, t), *[0] * (width - len(t))] for t in texts])
mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in texts])
gold = np.array(['{"label": "yes", "category": "pushpins", "defect": "missing_pushpin"}'] * 2, dtype=object)
data = DataProto.from_dict({"responses": responses, "response_mask": mask}, {"ground_truth": gold})
rewards, metrics = manager.compute_reward(data)
print(json.dumps([rewards.sum(-1).tolist(), metrics["accuracy_pushpins"], metrics["naming"], metrics["overlong"]]))
"""


def test_autorewardmanager_calls_our_file(easyr1_home):
    reward = REPOSITORY / "plugin" / "lad_reasoner" / "trainers" / "easyr1_reward.py"
    rewards, accuracy, naming, overlong = json.loads(run_in_easyr1(easyr1_home, CALL, f"{reward}:compute_score"))
    assert accuracy == naming == [1.0, 0.0]
    # 55 tokens of 60, with a buffer of 12; a character is a token here.
    assert overlong == pytest.approx([-7 / 12, 0.0])
    assert rewards == pytest.approx([1.0 + 0.2 - 7 / 12, 0.0])
