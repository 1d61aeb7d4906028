#!/usr/bin/env bash
# GRPO of Qwen2.5-VL-7B on two nodes of eight GPUs.
#
# Needs:    data/grpo.parquet and data/grpo_val.parquet (`lad build grpo --val-fraction 0.1`)
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  RAY_ADDRESS=auto easyr1 config=examples/grpo/qwen2_5_vl_7b_2x8.sh
#           bash examples/grpo/qwen2_5_vl_7b_2x8.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 2 nodes of 8 GPUs of 80 GB, a shared folder for data and checkpoints (estimated)
# Memory:   an update takes about 17.0 GiB per GPU; 5.8 GiB stay on each while vLLM uses
#           0.6 of it; 131.3 GiB per host (estimated)
# Time:     about 2 hours on 16 H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  worker.actor.micro_batch_size_per_device_for_update=2 \
  worker.actor.micro_batch_size_per_device_for_experience=4 \
  worker.actor.model.model_path=Qwen/Qwen2.5-VL-7B-Instruct \
  trainer.experiment_name=qwen2_5_vl_7b_2x8 \
  trainer.nnodes=2 \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_7b_2x8 \
  "$@"
