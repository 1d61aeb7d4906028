#!/usr/bin/env bash
# Yes or no as in the paper, and a box around each anomaly, paid by its overlap with the mask's box (docs/boxes.md).
#
# Needs:    data/grpo_boxes.parquet and data/grpo_boxes_val.parquet:
#             lad build grpo --mvtec DIR --boxes DIR --recipe all --balance --val-fraction 0.1
#               --out data/grpo_boxes.parquet
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen2_5_vl_3b_boxes.sh
#           bash examples/grpo/qwen2_5_vl_3b_boxes.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 8 GPUs of 80 GB (estimated)
# Memory:   an update takes about 11.6 GiB per GPU; 5.2 GiB stay on each while vLLM uses
#           0.6 of it; 62.9 GiB per host (estimated)
# Time:     about 1.5 hours on 8 H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  data.train_files=data/grpo_boxes.parquet \
  data.val_files=data/grpo_boxes_val.parquet \
  data.format_prompt=plugin/lad_reasoner/task/prompts/boxes.jinja \
  'worker.reward.reward_function_kwargs.box_weight=0.5' \
  'worker.reward.reward_function_kwargs.box_smallest=${data.min_pixels}' \
  'worker.reward.reward_function_kwargs.box_largest=${data.max_pixels}' \
  trainer.experiment_name=qwen2_5_vl_3b_boxes \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_3b_boxes \
  "$@"
