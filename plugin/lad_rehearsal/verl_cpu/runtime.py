"""Overrides and environment variables that a launcher adds to a verl run without a GPU.

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

from lad_reasoner.training.runtimes import RolloutEngine
from lad_rehearsal.verl_cpu.plugin import CPU_PLATFORM
from lad_rehearsal.vllm_cpu import vllm_environment

__all__ = ["EXTERNAL_MODULE", "cluster_environment", "cpu_environment", "cpu_overrides"]

#: verl imports this module in each of its processes; it registers the platform.
EXTERNAL_MODULE: Final = "lad_rehearsal.verl_cpu.plugin"


def cpu_overrides(
    *, ranks: int = 1, nodes: int = 1, own_ray: bool = True, engine: RolloutEngine = "transformers"
) -> dict[str, object]:
    """Return verl's overrides for a run without a GPU, to be merged over the translated config.

    Args:
        ranks: Trainer processes per node; each holds a shard of the model (FSDP2 over gloo). verl calls them GPUs.
        nodes: Nodes of a Ray cluster.
        own_ray: Start Ray for this run; otherwise the run joins a cluster whose nodes simulate ``ranks`` GPUs each.
        engine: What samples the responses.

    Returns:
        Hydra key to value; a key that is new to verl's config starts with ``++``. Lists and dicts are plain Python
        values.
    """
    model, rollout = "actor_rollout_ref.model", "actor_rollout_ref.rollout"
    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    overrides: dict[str, object] = {
        # The extension points of verl that the runtime uses.
        f"{model}.external_lib": "lad_rehearsal.verl_cpu.external",
        "trainer.device": "cpu",
        # One call for all weights: at this size, one call per weight costs more than the arithmetic.
        "++actor_rollout_ref.actor.optim.override_optimizer_config": {"fused": True},
        "trainer.v1.sampler.custom_sampler.path": "pkg://lad_reasoner.training.verl.replay_buffer",
        "trainer.v1.sampler.custom_sampler.name": "RewardReplayBuffer",
        # What needs a GPU.
        f"{model}.use_remove_padding": False,
        f"{model}.use_fused_kernels": False,
        f"{model}.enable_gradient_checkpointing": False,
        f"++{model}.override_config.attn_implementation": "sdpa",
        f"{rollout}.dtype": "float32",
        f"{rollout}.free_cache_engine": False,
        f"{rollout}.tensor_model_parallel_size": 1,
        f"{rollout}.log_prob_use_dynamic_bsz": False,
        "actor_rollout_ref.actor.use_dynamic_bsz": False,
        "actor_rollout_ref.ref.log_prob_use_dynamic_bsz": False,
        # One process each: there are few cores.
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        "data.dataloader_num_workers": 0,
        "data.filter_overlong_prompts_workers": 1,
        "trainer.nnodes": nodes,
        "trainer.n_gpus_per_node": ranks,
    }
    if own_ray:  # Ray rejects these when it joins a cluster
        overrides |= {
            # Logical CPUs limit the number of processes, not of cores.
            "ray_kwargs.ray_init.num_cpus": 16,
            "++ray_kwargs.ray_init.num_gpus": ranks,
            "++ray_kwargs.ray_init.include_dashboard": False,
            "++ray_kwargs.ray_init.object_store_memory": 500_000_000,
        }
    overrides |= _vllm_rollout() if engine == "vllm" else _own_rollout()
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


def _own_rollout() -> dict[str, object]:
    model, rollout = "actor_rollout_ref.model", "actor_rollout_ref.rollout"
    return {
        f"{rollout}.name": "hf",
        f"++{rollout}.agent.agent_loop_manager_class": "lad_rehearsal.verl_cpu.rollout.BatchRollout",
        f"{rollout}.router_config_path": str(files(__package__) / "router.yaml"),
        # The rollout reads full weights, so adapters are merged.
        f"{model}.lora.merge": True,
        # It lives in the trainer's process, and rewards are computed in the task runner's.
        f"{rollout}.agent.num_workers": 0,
        "reward.num_workers": 0,
    }


def _vllm_rollout() -> dict[str, object]:
    """Return what vLLM's CPU build cannot do, or does only in minutes; its limits stay the config's."""
    rollout = "actor_rollout_ref.rollout"
    return {
        f"{rollout}.name": "vllm",
        f"++{rollout}.enable_sleep_mode": False,
        f"{rollout}.enforce_eager": True,
        # Of this machine's memory: vLLM only checks that it is free. VLLM_CPU_KVCACHE_SPACE sizes the cache.
        f"{rollout}.gpu_memory_utilization": 0.1,
        f"{rollout}.agent.num_workers": 1,
        "reward.num_workers": 1,
    }


def cpu_environment(
    folder: Path, *, threads: int | None = None, engine: RolloutEngine = "transformers"
) -> dict[str, str]:
    """Return the environment variables of the trainer's process, to be merged over ``os.environ``.

    ``folder`` is the run's folder for Ray, from `run_folder`. It also marks the run's processes: see `end_run`.
    """
    return {
        **cluster_environment(threads=threads),
        **(vllm_environment(folder) if engine == "vllm" else {}),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray would otherwise end this run because of memory that other programs use.
        "RAY_memory_monitor_refresh_ms": "0",
        # Ray would otherwise start one process per logical CPU.
        "RAY_prestart_worker_first_driver": "0",
    }


def cluster_environment(*, threads: int | None = None) -> dict[str, str]:
    """Return the environment variables that every process of the run needs, on every node.

    Each process that computes has this many ``threads``; all cores by default, because trainer and rollout alternate.
    """
    return {
        "VERL_PLATFORM": CPU_PLATFORM,
        "VERL_USE_EXTERNAL_MODULES": EXTERNAL_MODULE,
        "OMP_NUM_THREADS": str(threads or os.cpu_count() or 1),
        # With more processes than cores, spinning threads would block the others.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        # glibc would otherwise keep freed memory: apart for each of many threads, and tensors of up to 32 MB.
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
        # Milliseconds that Ray waits for the reason of a process's death, for the error message; 1 s is too short.
        "RAY_timeout_ms_task_wait_for_death_info": "15000",
    }
