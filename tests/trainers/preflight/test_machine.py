"""`easyr1 check` of what is installed and what the machine has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.trainers.preflight.kit import (
    EASYR1,
    KEYS,
)

from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.installed import Trainer
from lad_reasoner.training.preflight import CHECKS, machine
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.preflight.model_size import training_memory


def test_without_a_trainer_the_machine_checks_say_so(good_words):
    config = load_config(good_words, KEYS)
    known = Known(config=config, trainer=None, gpu=False)
    lines = [str(found) for check in CHECKS for found in check(known)]
    assert [line for line in lines if "neither EasyR1 nor verl is installed" in line]


#: Releases with which EasyR1 at REQUIRED_EASYR1 works.
FIT = {
    "omegaconf": "2.3.0",
    "transformers": "4.57.1",
    "vllm": "0.11.0",
    "flash-attn": "2.8.3",
    "einops": "0.8.1",
    "msgspec": "0.19.0",
    "qwen-vl-utils": "0.0.14",
    "torch": "2.8.0",
}


@pytest.mark.parametrize(
    ("name", "release", "says"),
    [
        (
            "omegaconf",
            "2.4.0.dev3",
            "error: omegaconf: version 2.4.0.dev3 is installed, but omegaconf<2.4 is needed. Run: pip install",
        ),
        (
            "transformers",
            "5.5.4",
            "error: transformers: version 5.5.4 is installed, but transformers<5,>=4.54 is needed. Run: pip install",
        ),
        ("transformers", "4.52.0", "error: transformers: version 4.52.0 is"),
        ("vllm", "0.7.3", "error: vllm: version 0.7.3 is installed, but vllm>=0.8 is"),
        ("flash-attn", None, "error: flash-attn: it is not installed. Run: pip install"),
        ("einops", None, "error: einops: it is not installed"),
        ("msgspec", None, "error: msgspec: it is not installed"),
        ("torch", "2.8.0", ""),
    ],
)
def test_easyr1_needs_what_it_does_not_declare(name, release, says, good_words, monkeypatch):
    releases = {**FIT, name: release}

    monkeypatch.setattr(machine, "installed_version", lambda package: releases[package])
    trainer = Trainer("easyr1", "0.3.3.dev0", Path())
    known = Known(config=load_config(good_words, KEYS), trainer=trainer, gpu=True)
    lines = [str(found) for found in machine.check_packages(known)]
    assert [line.startswith(says) for line in lines] == ([True] if says else [])


def test_the_check_imports_neither_torch_nor_ray_nor_transformers(good_words):
    code = (
        "import sys; from lad_reasoner.commands.easyr1 import main\n"
        "try: main(['check', *sys.argv[1:]])\n"
        "except SystemExit: print(sorted({'torch', 'ray', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code, *good_words], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith("[]"), run.stdout + run.stderr


MEMORY = [
    (
        ["worker.actor.model.model_path=x/Qwen2.5-VL-7B"],
        80,
        "but the GPUs have 80.0 GiB",
    ),
    (["worker.actor.model.model_path=x/Qwen2.5-VL-3B"], 80, "the trained model leaves 0.39 of 80.0 GiB"),
    (
        ["worker.actor.model.model_path=x/Qwen2.5-VL-7B", "worker.rollout.gpu_memory_utilization=0.1"],
        141,
        "cannot hold the rollout engine's weights, about 15.4 GiB",
    ),
    (
        ["worker.actor.model.model_path=x/Qwen2.5-VL-7B", "worker.actor.fsdp.enable_cpu_offload=true"],
        80,
        "need about 139.0 GiB (estimated), but this machine has 64.0 GiB of memory",
    ),
]


@pytest.mark.parametrize(("words", "gpu", "says"), MEMORY)
def test_a_run_that_does_not_fit_is_found(words, gpu, says, good_words, monkeypatch):
    monkeypatch.setattr(machine, "gpu_memory", lambda: gpu * 2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=64 * 2**30))
    known = Known(config=load_config([*good_words, *words], KEYS), trainer=None, gpu=True)
    assert any(says in str(found) for found in machine.check_memory(known)), list(machine.check_memory(known))


#: Prompt, response, rows of a micro batch, and GiB beside weights, gradients and moments on an H200, with PyTorch's
#: FSDP and bf16 (tests/bench/gpu.py): Qwen2.5-VL-3B, two images of 401,408 pixels.
TAKEN = [
    (1280, 1024, 1, 4.68),
    (1280, 1024, 2, 9.30),
    (1280, 128, 1, 3.02),
    (1280, 128, 2, 5.98),
    (1280, 2816, 1, 8.0),
]


@pytest.mark.parametrize(("prompt", "response", "rows", "taken"), TAKEN)
def test_activations_are_estimated_within_15_percent_of_what_a_gpu_took(prompt, response, rows, taken, good_words):
    words = [
        "worker.actor.model.model_path=Qwen/Qwen2.5-VL-3B-Instruct",
        f"data.max_prompt_length={prompt}",
        f"data.max_response_length={response}",
        f"worker.actor.micro_batch_size_per_device_for_update={rows}",
    ]
    config = load_config([*good_words, *words], KEYS)
    memory = training_memory(Known(config=config, trainer=None, gpu=True))
    assert memory is not None
    assert memory.update["activations"] / 2**30 == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize(
    ("gpu", "here", "asked", "says"),
    [
        (True, 2, 4, "error: trainer.n_gpus_per_node: 4 is more than the 2 GPUs"),
        (True, 4, 4, ""),
        (False, 0, 4, "warning: trainer.n_gpus_per_node: this machine has no GPU: verl would run 4 ranks on the CPU"),
        (False, 0, 1, ""),
    ],
)
def test_gpus_are_counted(gpu, here, asked, says, *, good_words, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(machine, "gpu_count", lambda: here)
    config = load_config([*good_words, f"trainer.n_gpus_per_node={asked}"], KEYS)
    lines = [str(found) for found in machine.check_gpus(Known(config=config, trainer=None, gpu=gpu))]
    assert [line.startswith(says) for line in lines] == ([True] if says else [])


def test_easyr1_without_a_gpu_is_an_error_of_the_check(good_words, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(machine, "gpu_count", lambda: 0)
    for gpu, count in {False: 1, True: 0}.items():
        monkeypatch.setattr(machine, "gpu_count", lambda gpu=gpu: int(gpu))
        known = Known(config=load_config(good_words, KEYS), trainer=EASYR1, gpu=gpu)
        assert ["EasyR1 needs a GPU" in str(found) for found in machine.check_gpus(known)] == [True] * count


def test_too_few_cpus_for_easyr1_are_found(good_words, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    known = Known(config=load_config(good_words, KEYS), trainer=Trainer("easyr1", "", Path()), gpu=True)
    (found,) = machine.check_cpus(known)
    assert "this machine has 3 CPUs, and EasyR1 waits forever for 4:" in str(found)


def test_qwen3_vl_needs_later_releases(good_words, monkeypatch):
    monkeypatch.setattr(machine, "installed_version", {"transformers": "4.56.0", "vllm": "0.10.0"}.get)
    monkeypatch.setattr(machine, "EASYR1_NEEDS", ())
    words = [*good_words, "worker.actor.model.model_path=Qwen/Qwen3-VL-4B-Instruct"]
    known = Known(config=load_config(words, KEYS), trainer=Trainer("easyr1", "", Path()), gpu=True)
    assert [found.where for found in machine.check_packages(known)] == ["transformers", "vllm"]
