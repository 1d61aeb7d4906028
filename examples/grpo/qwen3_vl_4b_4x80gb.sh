#!/usr/bin/env bash
# GRPO of Qwen3-VL-4B, full parameters, on four GPUs of 80 GB.
#
# Needs:    data/grpo.parquet and data/grpo_val.parquet (`lad build grpo --val-fraction 0.1`)
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen3_vl_4b_4x80gb.sh
#           bash examples/grpo/qwen3_vl_4b_4x80gb.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 4 GPUs of 80 GB (estimated)
# Memory:   an update takes about 21.2 GiB per GPU; 12.4 GiB stay on each while vLLM uses
#           0.6 of it; 41.4 GiB per host (estimated)
# Time:     about 4 hours on 4 H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  worker.actor.micro_batch_size_per_device_for_experience=4 \
  worker.actor.model.model_path=Qwen/Qwen3-VL-4B-Instruct \
  trainer.experiment_name=qwen3_vl_4b_4x80gb \
  trainer.n_gpus_per_node=4 \
  trainer.save_checkpoint_path=runs/grpo/qwen3_vl_4b_4x80gb \
  "$@"
