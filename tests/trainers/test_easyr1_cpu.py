"""The stand-in for vLLM: when it refuses, and what it does with the trainer's weights."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lad_rehearsal.easyr1_cpu as package
from lad_reasoner.support.errors import RunError
from lad_rehearsal.easyr1_cpu.environment import easyr1_environment, write_path

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

STAND_IN = Path(package.__file__).parent / "vllm"


@pytest.fixture
def weights_module() -> ModuleType:
    """The module by itself: importing its package would change torch for every other test."""
    spec = importlib.util.spec_from_file_location("stand_in_weights", STAND_IN / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tied(torch.nn.Module):
    """Two layers and an output that is the embedding."""

    _checkpoint_conversion_mapping = {  # noqa: RUF012 - Qwen2.5-VL's
        "^visual": "model.visual",
        r"^model(?!\.(language_model|visual))": "model.language_model",
    }

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.ModuleDict(
            {"visual": torch.nn.Linear(3, 2), "language_model": torch.nn.Linear(4, 5, bias=False)}
        )
        self.lm_head = torch.nn.Linear(4, 5, bias=False)
        self.lm_head.weight = self.model["language_model"].weight


def hub_weights() -> dict[str, Any]:
    return {"visual.weight": torch.ones(2, 3), "visual.bias": torch.ones(2), "model.weight": torch.full((5, 4), 2.0)}


def test_weights_come_by_their_hub_names_and_a_tied_one_comes_once(weights_module):
    model = Tied()
    weights_module.Weights(model).load_weights(hub_weights().items())
    assert torch.equal(model.lm_head.weight, torch.full((5, 4), 2.0))
    assert torch.equal(model.model["visual"].weight, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda given: given.pop("visual.bias"), "did not send 1 weights of the model, such as model.visual.bias"),
        (lambda given: given.update({"visual.extra": torch.ones(1)}), "has no such weight"),
        (lambda given: given.update({"visual.bias": torch.ones(3)}), r"but the model has shape \(2,\)"),
    ],
)
def test_other_weights_than_the_models_are_refused(weights_module, change, says):
    given = hub_weights()
    change(given)
    with pytest.raises(RunError, match=says):
        weights_module.Weights(Tied()).load_weights(given.items())


def adapter(rank: int) -> dict[str, Any]:
    name = "base_model.model.model.language_model"
    return {f"{name}.lora_A.weight": torch.ones(rank, 4), f"{name}.lora_B.weight": torch.full((5, rank), 0.5)}


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 2.0), (True, 4.0)])
def test_an_adapter_replaces_the_one_before(weights_module, rslora, scaling):
    model = Tied()
    before = model.lm_head.weight.detach().clone()
    weights = weights_module.Weights(model)
    weights.keep_base()
    for _ in range(2):
        weights.add_adapter(adapter(4), {"r": 4, "lora_alpha": 8, "use_rslora": rslora})
    torch.testing.assert_close(model.lm_head.weight.detach(), before + scaling * 4 * 0.5)


def test_an_adapter_for_no_module_of_the_model_is_refused(weights_module):
    weights = weights_module.Weights(Tied())
    weights.keep_base()
    strange = {name.replace("language_model", "head"): tensor for name, tensor in adapter(4).items()}
    with pytest.raises(RunError, match="which the model does not have"):
        weights.add_adapter(strange, {"r": 4, "lora_alpha": 8})
    with pytest.raises(RunError, match="without weights"):
        weights.add_adapter({}, {"r": 4, "lora_alpha": 8})


def import_vllm(folder: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{before}\nimport vllm, torch\nprint(vllm.__file__, torch.cuda.current_device())"
    environment = easyr1_environment(folder, checkout=None) | {"PATH": ""}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


GPU = "import torch; torch.cuda.is_available = lambda: True; torch.cuda.device_count = lambda: 2"


def test_it_is_imported_where_there_is_neither_gpu_nor_vllm(tmp_path):
    run = import_vllm(tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [f"{tmp_path}/path/vllm/__init__.py", "cpu"]


def test_it_refuses_beside_a_gpu(tmp_path):
    run = import_vllm(tmp_path, GPU)
    assert run.returncode != 0
    assert "was imported with 2 visible GPU(s)" in run.stderr


@pytest.mark.parametrize("installed", ["package", "metadata"])
def test_it_refuses_beside_vllm_itself(tmp_path, installed):
    site = tmp_path / "site"
    real = site / ("vllm" if installed == "package" else "vllm-0.11.0.dist-info")
    real.mkdir(parents=True)
    (real / "__init__.py").touch()
    (real / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.11.0\n")
    run = import_vllm(tmp_path, f"sys.path.append({str(site)!r})")
    assert run.returncode != 0
    assert "needs an environment without vLLM" in run.stderr
    assert "EASYR1_PYTHON" in run.stderr


def test_the_path_holds_this_package_and_nothing_else_of_its_environment(tmp_path):
    path = write_path(tmp_path)
    assert sorted(entry.name.partition("-")[0] for entry in path.iterdir()) == [
        "lad_reasoner",
        "lad_rehearsal",
        "vllm",
        "vllm",
    ]
    assert (path / "lad_reasoner" / "task" / "rewards.py").is_file()
