"""The plugin changes nothing where it is not asked for, and refuses to take over beside a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lad_reasoner.support.errors import RunError


def python(code: str, **environment: str) -> str:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("VERL_")} | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    ).stdout


def test_loading_it_without_being_asked_imports_nothing_heavy() -> None:
    heavy = python(
        "import lad_rehearsal.verl_cpu.plugin, sys; print(sorted({'torch', 'verl', 'ray'} & set(sys.modules)))"
    )
    assert heavy.strip() == "[]"


@pytest.mark.frameworks
def test_beside_a_gpu_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    from lad_rehearsal.verl_cpu.plugin import register

    with pytest.raises(RunError, match="2 visible GPU"):
        register()


@pytest.mark.frameworks
@pytest.mark.slow
def test_verl_takes_the_platform_when_asked() -> None:
    pytest.importorskip("verl")
    code = (
        "from verl.utils.device import get_device_name, get_torch_device, get_device_id\n"
        "device = get_torch_device()\n"
        "state = device.get_rng_state(); device.set_rng_state(state)\n"
        "print(get_device_name(), get_device_id(), device.memory_allocated(), device.mem_get_info()[1] > 0)"
    )
    asked = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "lad_rehearsal.verl_cpu.plugin"}
    assert python(code, **asked).splitlines()[-1] == "cpu cpu 0 True"


@pytest.mark.frameworks
@pytest.mark.slow
def test_verl_alone_is_left_alone() -> None:
    pytest.importorskip("verl")
    registered = python(
        "import verl\nfrom verl.plugin.platform import PlatformRegistry as r\nprint(r.registered_names())"
    )
    assert "cpu" not in registered.splitlines()[-1]
