#!/usr/bin/env bash
# GRPO of Qwen2.5-VL-3B, full parameters, on four GPUs of 40 GB or more.
#
# Needs:    data/grpo.parquet and data/grpo_val.parquet (`lad build grpo --val-fraction 0.1`)
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen2_5_vl_3b_4x40gb.sh
#           bash examples/grpo/qwen2_5_vl_3b_4x40gb.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 4 GPUs of 40 GB (estimated)
# Memory:   an update takes about 18.6 GiB per GPU; 10.5 GiB stay on each while vLLM uses
#           0.5 of it; 34.9 GiB per host (estimated)
# Time:     about 3 hours on 4 H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  worker.rollout.gpu_memory_utilization=0.5 \
  trainer.experiment_name=qwen2_5_vl_3b_4x40gb \
  trainer.n_gpus_per_node=4 \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_3b_4x40gb \
  "$@"
