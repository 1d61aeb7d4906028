#!/usr/bin/env bash
# MMAD's multiple-choice questions about MVTec AD and VisA; the reward is paid for the right letter (docs/evaluation.md).
#
# Needs:    data/grpo_mmad.parquet and data/grpo_mmad_val.parquet:
#             lad build mmad --root DIR --training --val-fraction 0.1 --images embed --max-pixels 401408
#               --out data/grpo_mmad.parquet
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen2_5_vl_3b_mmad.sh
#           bash examples/grpo/qwen2_5_vl_3b_mmad.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 8 GPUs of 80 GB (estimated)
# Memory:   an update takes about 11.6 GiB per GPU; 5.2 GiB stay on each while vLLM uses
#           0.6 of it; 62.9 GiB per host (estimated)
# Time:     about 1.5 hours on 8 H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  data.train_files=data/grpo_mmad.parquet \
  data.val_files=data/grpo_mmad_val.parquet \
  data.format_prompt=plugin/lad_reasoner/task/prompts/letters.jinja \
  trainer.experiment_name=qwen2_5_vl_3b_mmad \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_3b_mmad \
  "$@"
