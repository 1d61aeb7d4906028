#!/usr/bin/env bash
# GRPO of Qwen2.5-VL-7B, full parameters, on four GPUs of 80 GB.
#
# Needs:    data/grpo.parquet and data/grpo_val.parquet (`lad build grpo --val-fraction 0.1`)
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen2_5_vl_7b_4x80gb.sh
#           bash examples/grpo/qwen2_5_vl_7b_4x80gb.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 4 GPUs of 80 GB, 128 GB of host memory (estimated)
# Memory:   an update takes about 35.5 GiB per GPU; 23.2 GiB stay on each while vLLM uses
#           0.5 of it; 77.2 GiB per host (estimated)
# Time:     about 7 hours on 4 H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  worker.actor.model.model_path=Qwen/Qwen2.5-VL-7B-Instruct \
  worker.rollout.gpu_memory_utilization=0.5 \
  trainer.experiment_name=qwen2_5_vl_7b_4x80gb \
  trainer.n_gpus_per_node=4 \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_7b_4x80gb \
  "$@"
