#!/usr/bin/env bash
# GRPO of Qwen2.5-VL-3B, full parameters with fp32 master weights, on one GPU of 80 or 141 GB.
#
# Needs:    data/grpo.parquet and data/grpo_val.parquet (`lad build grpo --val-fraction 0.1`)
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen2_5_vl_3b_1x80gb.sh
#           bash examples/grpo/qwen2_5_vl_3b_1x80gb.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 1 GPU of 80 or 141 GB, 96 GB of host memory (estimated)
# Memory:   an update takes about 60.5 GiB per GPU; 0.0 GiB stay on each while vLLM uses
#           0.5 of it; 48.9 GiB per host (estimated)
# Time:     about 12 hours on one H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  worker.actor.offload.offload_params=true \
  worker.actor.offload.offload_optimizer=true \
  worker.rollout.gpu_memory_utilization=0.5 \
  trainer.experiment_name=qwen2_5_vl_3b_1x80gb \
  trainer.n_gpus_per_node=1 \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_3b_1x80gb \
  "$@"
