"""EasyR1's and verl's own functions on the same tensors: losses, KL, advantages and schedules as we translate them.

EasyR1 runs in a process of its own, in a checkout that EASYR1_HOME names; verl runs here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.easyr1.keys import read_snapshot
from lad_reasoner.training.verl.overrides import translate

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.frameworks, pytest.mark.easyr1]

ACTOR = "actor_rollout_ref.actor"
OPTIM = "worker.actor.optim."
REWARD = "worker.reward.reward_function=plugin/lad_reasoner/training/easyr1/reward.py:compute_score"
LOSSES = [(loss, mode) for loss in ("default", "gspo", "cispo", "sapo") for mode in ("token", "seq")]
TRANSLATED = [pair for pair in LOSSES if pair != ("sapo", "token")]
PENALTIES = ("kl", "abs", "mse", "low_var_kl")
ESTIMATORS = ("grpo", "rloo", "reinforce_plus_plus")
#: Learning rate schedules, as keys of ``worker.actor.optim`` with their values; STEPS is the length of the run.
SCHEDULES = [
    {"lr_scheduler_type": "constant"},
    {"lr_scheduler_type": "constant", "lr_warmup_ratio": 0.29},
    {"lr_scheduler_type": "cosine", "lr_warmup_ratio": 0.3, "min_lr_ratio": 0.1},
    {"lr_scheduler_type": "cosine", "lr_warmup_steps": 4},
    {"lr_scheduler_type": "cosine", "lr_warmup_steps": 0, "lr_warmup_ratio": 0.5},
]
STEPS = 13

#: Both sides make their tensors with these lines.
TENSORS = """
import torch, numpy
torch.manual_seed(0)
old, new, ref = (-torch.rand(16, 12) for _ in range(3))
lengths = torch.arange(16) % 12 + 1
mask = (torch.arange(12) < lengths[:, None]).float()
rewards = torch.zeros(16, 12).scatter_(1, (lengths - 1)[:, None], torch.randint(0, 2, (16, 1)).float())
groups = numpy.repeat(numpy.arange(4), 4)
advantages = torch.randn(16, 1).expand(16, 12) * mask
"""

EASYR1 = (
    TENSORS
    + """
import json, sys
from importlib.util import module_from_spec, spec_from_file_location
from verl.trainer import core_algos as core
asked = json.loads(sys.argv[1])
found = {}
for loss, mode in asked["losses"]:
    value, _ = core.compute_policy_loss(
        old, new, advantages, mask, clip_ratio_low=0.2, clip_ratio_high=0.3, clip_ratio_dual=3.0,
        tau_positive=1.0, tau_negative=1.05, loss_type=loss, loss_avg_mode=mode)
    found[f"{loss} {mode}"] = value.item()
for penalty in asked["penalties"]:
    found[penalty] = (core.compute_kl(new, ref, penalty) * mask).sum().item()
for name in asked["estimators"]:
    value, _ = core.compute_advantage_return(
        core.AdvantageEstimator(name), token_level_rewards=rewards, response_mask=mask, index=groups,
        gamma=torch.tensor(1.0), lam=1.0)
    found[name] = (value * mask).tolist()
import ast, pathlib
from types import SimpleNamespace
from verl.utils import torch_functional
# EasyR1's worker imports vLLM, so its branch that builds the schedule is taken out of the source and run here.
worker = ast.parse(pathlib.Path("verl/workers/fsdp_workers.py").read_text())
branches = [
    node for node in ast.walk(worker)
    if isinstance(node, ast.If) and ast.unparse(node.test).startswith("optim_config.lr_")
    and (".lr_warmup_steps " in ast.unparse(node.test) or "'constant'" in ast.unparse(node.test))]
for index, config in enumerate(asked["schedules"]):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    holder = SimpleNamespace(optimizer=optimizer)
    names = {"self": holder, "optim_config": SimpleNamespace(**config), **vars(torch_functional)}
    exec(compile(ast.Module(branches, []), "fsdp_workers.py", "exec"), names)
    found[f"schedule {index}"] = rates = []
    for _ in range(config["training_steps"]):
        rates += holder.lr_scheduler.get_last_lr()
        optimizer.step()
        holder.lr_scheduler.step()
print(json.dumps(found))
"""
)


@pytest.fixture(scope="module")
def easyr1() -> dict[str, Any]:
    home = os.environ.get("EASYR1_HOME")
    if not home or not (Path(home) / "verl" / "trainer" / "core_algos.py").is_file():
        pytest.skip("set EASYR1_HOME to a checkout of hiyouga/EasyR1 (commit in REQUIRED_EASYR1)")
    defaults = {key.rpartition(".")[2]: item.default for key, item in read_snapshot().items() if OPTIM in key}
    schedules = [{**defaults, **schedule, "training_steps": STEPS} for schedule in SCHEDULES]
    asked = json.dumps({"losses": LOSSES, "penalties": PENALTIES, "estimators": ESTIMATORS, "schedules": schedules})
    # The checkout first, before the installed verl; `-P` keeps this folder out.
    code = f"import sys; sys.path.insert(0, {home!r})\n{STUBS}{EASYR1}"
    run = subprocess.run(
        [sys.executable, "-P", "-c", code, asked], capture_output=True, text=True, cwd=home, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


#: core_algos and its helpers are plain torch; the package around them imports what only a GPU machine has.
STUBS = """
import types
for name, folder in {"verl": "verl", "verl.trainer": "verl/trainer", "verl.utils": "verl/utils"}.items():
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = [folder]
"""


@pytest.fixture(scope="module")
def tensors() -> SimpleNamespace:
    names: dict[str, Any] = {}
    exec(TENSORS, names)  # noqa: S102 - the lines above
    return SimpleNamespace(**names)


def overrides(*words: str) -> dict[str, object]:
    keys = read_snapshot()
    return translate(load_config([REWARD, *words], keys))


@pytest.mark.parametrize(("loss", "mode"), TRANSLATED)
def test_the_translated_loss_is_the_same_number(easyr1, tensors, loss, mode):
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import ActorConfig

    ours = overrides(f"worker.actor.loss_type={loss}", f"worker.actor.loss_avg_mode={mode}")
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=ours[f"{ACTOR}.clip_ratio"],
        clip_ratio_low=ours[f"{ACTOR}.clip_ratio_low"],
        clip_ratio_high=ours[f"{ACTOR}.clip_ratio_high"],
        clip_ratio_c=ours[f"{ACTOR}.clip_ratio_c"],
        tau_pos=ours[f"{ACTOR}.tau_pos"],
        tau_neg=ours[f"{ACTOR}.tau_neg"],
    )
    value, _ = get_policy_loss_fn(ours[f"{ACTOR}.policy_loss.loss_mode"])(
        old_log_prob=tensors.old,
        log_prob=tensors.new,
        advantages=tensors.advantages,
        response_mask=tensors.mask,
        loss_agg_mode=ours[f"{ACTOR}.loss_agg_mode"],
        config=config,
    )
    assert value.item() == pytest.approx(easyr1[f"{loss} {mode}"], abs=1e-5)


def test_what_is_refused_would_be_another_number(easyr1):
    assert abs(easyr1["sapo token"] - easyr1["sapo seq"]) > 1e-3


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_translated_kl_is_the_same_number(easyr1, tensors, penalty):
    from verl.trainer.ppo.core_algos import kl_penalty

    name = overrides(f"algorithm.kl_penalty={penalty}")["algorithm.kl_penalty"]
    value = (kl_penalty(tensors.new, tensors.ref, name) * tensors.mask).sum()
    assert value.item() == pytest.approx(easyr1[penalty], rel=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_translated_advantages_are_the_same_numbers(easyr1, tensors, estimator):
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    name = overrides(f"algorithm.adv_estimator={estimator}")["algorithm.adv_estimator"]
    value, _ = get_adv_estimator_fn(name)(
        token_level_rewards=tensors.rewards,
        response_mask=tensors.mask,
        index=tensors.groups,
        config=SimpleNamespace(gamma=1.0, lam=1.0, get=lambda _name, default=None: default),
    )
    assert torch.allclose(value * tensors.mask, torch.tensor(easyr1[estimator]), atol=1e-4)


@pytest.mark.parametrize("index", range(len(SCHEDULES)))
def test_the_translated_schedule_has_the_same_rates(easyr1, index):
    from verl.workers.config import FSDPOptimizerConfig
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    place = f"{ACTOR}.optim."
    ours = overrides(f"{OPTIM}lr=1e-3", *(f"{OPTIM}{name}={value}" for name, value in SCHEDULES[index].items()))
    options = {name.removeprefix(place): value for name, value in ours.items() if name.startswith(place)}
    config = FSDPOptimizerConfig(**options, total_training_steps=STEPS)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.lr)
    schedule = FSDPEngine._build_lr_scheduler(SimpleNamespace(optimizer_config=config, rank=1), optimizer)
    rates = []
    for _ in range(STEPS):
        rates += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(easyr1[f"schedule {index}"], rel=1e-12)
    constant = SCHEDULES[index] == {"lr_scheduler_type": "constant"}
    assert (len(set(rates)) == 1) is constant
