"""What a launcher adds to a verl run when there is no GPU: overrides and environment.

    overrides |= cpu_overrides(ranks=1)
    with run_folder() as folder:
        environment = os.environ | cpu_environment(folder)
        subprocess.Popen([sys.executable, "-m", "verl.trainer.main_ppo", *as_arguments(overrides)],
                         env=environment, start_new_session=True)
        ...
        end_run(folder)

Nothing here imports torch, ray or verl.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from lad_rehearsal.verl_cpu.plugin import CPU_PLATFORM

__all__ = ["EXTERNAL_MODULE", "cluster_environment", "cpu_environment", "cpu_overrides"]

#: Imported by verl in each of its processes; registers platform, engine, rollout and sampler.
EXTERNAL_MODULE: Final = "lad_rehearsal.verl_cpu.plugin"


def cpu_overrides(*, ranks: int = 1, nodes: int = 1, own_ray: bool = True) -> dict[str, object]:
    """Return verl's overrides for a run without a GPU, to be laid over the translated config.

    Args:
        ranks: Trainer processes a node; each holds a shard of the model (FSDP2 over gloo). verl calls them GPUs.
        nodes: Nodes of a Ray cluster.
        own_ray: Start Ray for this run; else the run joins a cluster, whose nodes pretend ``ranks`` GPUs each.

    Returns:
        Hydra key to value; a key that verl's config does not have already starts with ``++``. Lists and dicts are
        plain Python values: write them in Hydra's grammar.
    """
    model, rollout = "actor_rollout_ref.model", "actor_rollout_ref.rollout"
    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    overrides: dict[str, object] = {
        # Where the runtime hooks into verl.
        f"{model}.external_lib": "lad_rehearsal.verl_cpu.external",
        f"{rollout}.name": "hf",
        f"++{rollout}.agent.agent_loop_manager_class": "lad_rehearsal.verl_cpu.rollout.BatchRollout",
        f"{rollout}.router_config_path": str(files(__package__) / "router.yaml"),
        "trainer.device": "cpu",
        # One call for all weights: a call a weight costs more than the arithmetic.
        "++actor_rollout_ref.actor.optim.override_optimizer_config": {"fused": True},
        "trainer.v1.sampler.custom_sampler.path": "pkg://lad_reasoner.training.verl.replay_buffer",
        "trainer.v1.sampler.custom_sampler.name": "RewardReplayBuffer",
        # What needs a GPU.
        f"{model}.use_remove_padding": False,
        f"{model}.use_fused_kernels": False,
        f"{model}.enable_gradient_checkpointing": False,
        f"++{model}.override_config.attn_implementation": "sdpa",
        # The rollout takes whole weights: adapters are merged for it.
        f"{model}.lora.merge": True,
        f"{rollout}.dtype": "float32",
        f"{rollout}.free_cache_engine": False,
        f"{rollout}.tensor_model_parallel_size": 1,
        f"{rollout}.log_prob_use_dynamic_bsz": False,
        "actor_rollout_ref.actor.use_dynamic_bsz": False,
        "actor_rollout_ref.ref.log_prob_use_dynamic_bsz": False,
        # One process each: there are few cores.
        f"{rollout}.agent.num_workers": 0,
        "reward.num_workers": 0,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        "data.dataloader_num_workers": 0,
        "data.filter_overlong_prompts_workers": 1,
        "trainer.nnodes": nodes,
        "trainer.n_gpus_per_node": ranks,
    }
    if own_ray:  # Ray refuses these where it joins a cluster
        overrides |= {
            # Logical CPUs are tickets to start a process, not cores.
            "ray_kwargs.ray_init.num_cpus": 16,
            "++ray_kwargs.ray_init.num_gpus": ranks,
            "++ray_kwargs.ray_init.include_dashboard": False,
            "++ray_kwargs.ray_init.object_store_memory": 500_000_000,
        }
    for role in ("actor", "ref"):
        prefix = f"actor_rollout_ref.{role}"
        overrides |= {
            f"{prefix}.strategy": "fsdp2",
            f"{prefix}.use_torch_compile": False,
            f"{prefix}.fsdp_config.strategy": "fsdp2",
            f"{prefix}.fsdp_config.use_torch_compile": False,
            f"{prefix}.fsdp_config.model_dtype": "fp32",
            f"{prefix}.fsdp_config.param_offload": False,
            f"{prefix}.fsdp_config.optimizer_offload": False,
            f"++{prefix}.fsdp_config.mixed_precision": precision,
        }
    return overrides


def cpu_environment(folder: Path, *, threads: int | None = None) -> dict[str, str]:
    """Return the environment variables of the trainer's process, to be laid over ``os.environ``.

    Args:
        folder: The run's own folder for Ray, from `run_folder`. It also marks the run's processes: see `end_run`.
        threads: Threads of each process that computes; all cores by default, since trainer and rollout take turns.
    """
    return {
        **cluster_environment(threads=threads),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray would end this run because of the memory that other programs hold.
        "RAY_memory_monitor_refresh_ms": "0",
        # A process a logical CPU would be started at once otherwise.
        "RAY_prestart_worker_first_driver": "0",
    }


def cluster_environment(*, threads: int | None = None) -> dict[str, str]:
    """Return what each of the run's processes needs in its environment, on whichever node it is.

    Args:
        threads: Threads of each process that computes; all cores by default, since trainer and rollout take turns.
    """
    return {
        "VERL_PLATFORM": CPU_PLATFORM,
        "VERL_USE_EXTERNAL_MODULES": EXTERNAL_MODULE,
        "OMP_NUM_THREADS": str(threads or os.cpu_count() or 1),
        # Waiting threads that spin stop the others where processes outnumber the cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        # In ms: how long Ray waits to learn why a process is gone, which is what an error can say; 1 s is too short.
        "RAY_timeout_ms_task_wait_for_death_info": "15000",
    }
