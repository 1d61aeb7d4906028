#!/usr/bin/env bash
# GRPO of Qwen2.5-VL-3B in pure bf16 on one GPU of 40 or 48 GB.
#
# Needs:    data/grpo.parquet and data/grpo_val.parquet (`lad build grpo --val-fraction 0.1`)
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen2_5_vl_3b_1x48gb_bf16.sh
#           bash examples/grpo/qwen2_5_vl_3b_1x48gb_bf16.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 1 GPU of 40 or 48 GB, 64 GB of host memory (estimated)
# Memory:   an update takes about 32.6 GiB per GPU; 7.0 GiB stay on each while vLLM uses
#           0.4 of it; 21.0 GiB per host (estimated)
# Time:     about 12 hours on one H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  worker.actor.fsdp.torch_dtype=bf16 \
  worker.actor.offload.offload_optimizer=true \
  worker.rollout.gpu_memory_utilization=0.4 \
  trainer.experiment_name=qwen2_5_vl_3b_1x48gb_bf16 \
  trainer.n_gpus_per_node=1 \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_3b_1x48gb_bf16 \
  "$@"
