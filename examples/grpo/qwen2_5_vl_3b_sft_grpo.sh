#!/usr/bin/env bash
# LAD-Reasoner itself: GRPO after SFT (the paper's last row; qwen2_5_vl_3b_loco.yaml is the row GRPO).
#
# Needs:    data/grpo.parquet and data/grpo_val.parquet (`lad build grpo --val-fraction 0.1`),
#           runs/sft/qwen2_5_vl_3b (examples/sft/qwen2_5_vl_3b.yaml), and
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen2_5_vl_3b_sft_grpo.sh
#           bash examples/grpo/qwen2_5_vl_3b_sft_grpo.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 8 GPUs of 80 GB (estimated)
# Memory:   an update takes about 11.6 GiB per GPU; 5.2 GiB stay on each while vLLM uses
#           0.6 of it; 62.9 GiB per host (estimated)
# Time:     about 1.5 hours on 8 H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  worker.actor.model.model_path=runs/sft/qwen2_5_vl_3b \
  trainer.experiment_name=qwen2_5_vl_3b_sft_grpo \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_3b_sft_grpo \
  "$@"
