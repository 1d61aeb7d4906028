"""From a config to what the trainer is started with: its command line, its environment, its config file."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from lad_reasoner.support.errors import RunError
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.installed import Trainer, has_gpu, joins_cluster
from lad_reasoner.training.metrics import attempts_of
from lad_reasoner.training.runtimes import RolloutEngine, cpu_runtime
from lad_reasoner.training.verl.hydra import as_words, lay_over
from lad_reasoner.training.verl.overrides import EXTERNAL_LIB, SAVE_CONTENTS, translate
from lad_reasoner.training.verl.structured import refuse_structured, structured_overrides

__all__ = [
    "CONFIG_COPY",
    "Command",
    "build_command",
    "finds_gpu",
    "next_attempt",
    "run_overrides",
    "trainer_environment",
]

#: The resolved config, in the folder of each attempt. EasyR1 reads it.
CONFIG_COPY: Final = "easyr1.yaml"


@dataclass(frozen=True, slots=True)
class Command:
    """What the trainer is started with: the words of its command line, and whether the CPU runtime is used."""

    words: list[str]
    on_cpu: bool

    def __str__(self) -> str:
        return shlex.join(self.words)


def next_attempt(run_dir: Path) -> Path:
    """Return the folder of a run's next attempt, without creating it.

    Each start of a run is an attempt with its own folder, ``<checkpoint folder>/attempts/<n>``.
    """
    return run_dir / "attempts" / f"{len(attempts_of(run_dir)) + 1:03}"


def build_command(
    config: EasyR1Config,
    trainer: Trainer,
    attempt: Path,
    *,
    gpu: bool,
    cluster: bool = False,
    python: str = sys.executable,
    engine: RolloutEngine = "transformers",
) -> Command:
    """Return the trainer's command line.

    ``gpu`` states whether the trainer will find GPUs, on this machine or on a cluster; with ``cluster`` it joins a
    running Ray cluster, otherwise it starts Ray. ``python`` is the interpreter that has the trainer, and ``engine``
    samples the responses of verl on a CPU.

    Raises:
        UsageError: verl has no counterpart for a key, or nothing can hold the rollouts to the template.
        RunError: EasyR1 without a GPU.
    """
    refuse_structured(config, trainer.name, vllm=gpu or engine == "vllm")
    if trainer.name == "easyr1":
        if not gpu:
            raise RunError("EasyR1 needs a GPU", remedy="Without one, install verl instead: it has a CPU runtime")
        return Command([python, "-m", "verl.trainer.main", f"config={attempt / CONFIG_COPY}"], on_cpu=False)
    overrides = translate(config) | (structured_overrides() if config.structured else {})
    if not gpu:
        # Models are small on a CPU, so each checkpoint also holds a model folder that can be used directly.
        overrides[SAVE_CONTENTS] = [*cast("list[str]", overrides[SAVE_CONTENTS]), "hf_model"]
        runtime = _cpu_overrides(config, cluster=cluster, engine=engine)
        if (library := overrides.get(EXTERNAL_LIB)) is not None:
            runtime[EXTERNAL_LIB] = [runtime[EXTERNAL_LIB], library]  # the runtime's engine first
        overrides = lay_over(overrides, runtime)
    overrides = lay_over(overrides, run_overrides(config, attempt))
    return Command([python, "-m", "verl.trainer.main_ppo", *as_words(overrides)], on_cpu=not gpu)


def trainer_environment(command: Command, folder: Path | None) -> dict[str, str]:
    """Return all environment variables of the trainer; ``folder`` is the run's own for Ray, None joins a cluster."""
    own = {**os.environ, "PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1"}
    if folder is None:  # RAY_TMPDIR is where Ray looks for the cluster, so the user's value stays
        return {**own, **(cpu_runtime().cluster_environment() if command.on_cpu else {})}
    return {**own, "RAY_TMPDIR": str(folder), **(cpu_runtime().cpu_environment(folder) if command.on_cpu else {})}


def finds_gpu() -> bool:
    """Return whether a trainer that starts here finds GPUs: this machine's, or those of a running cluster."""
    return has_gpu() or joins_cluster()


def run_overrides(config: EasyR1Config, attempt: Path) -> dict[str, object]:
    """Return what every run of verl under our command adds: our dataset class, where metrics go, no stray folders."""
    return {
        "data.custom_cls.path": "pkg://lad_reasoner.training.verl.dataset",
        "data.custom_cls.name": "PairDataset",
        "trainer.logger": sorted({*config["trainer.logger"], "file"}),
        "++ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH": str(attempt / "verl.jsonl"),
        "trainer.v1.sampler.custom_sampler.path": "pkg://lad_reasoner.training.verl.replay_buffer",
        "trainer.v1.sampler.custom_sampler.name": "RewardReplayBuffer",
        "++trainer.v1.sampler.sampler_kwargs.reward_log": str(attempt / "rewards.jsonl"),
        "hydra.run.dir": str(attempt),
        "hydra.output_subdir": "hydra",
    }


def _cpu_overrides(config: EasyR1Config, *, cluster: bool, engine: RolloutEngine) -> dict[str, object]:
    ranks, nodes = config["trainer.n_gpus_per_node"], config["trainer.nnodes"]
    if not cluster:
        return cpu_runtime().cpu_overrides(ranks=ranks, engine=engine)
    # Ray's daemons are running already, so the environment of the trainer's processes has to travel with the run.
    prefix = "++ray_kwargs.ray_init.runtime_env.env_vars"
    travels = {f"{prefix}.{name}": value for name, value in cpu_runtime().cluster_environment().items()}
    return cpu_runtime().cpu_overrides(ranks=ranks, nodes=nodes, own_ray=False) | travels
