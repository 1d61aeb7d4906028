#!/usr/bin/env bash
# Ablation: the KL penalty in the loss, as in EasyR1's own examples, in place of equation 7's reward.
#
# Needs:    data/grpo.parquet and data/grpo_val.parquet (`lad build grpo --val-fraction 0.1`)
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen2_5_vl_3b_kl_loss.sh
#           bash examples/grpo/qwen2_5_vl_3b_kl_loss.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 8 GPUs of 80 GB (estimated)
# Memory:   an update takes about 11.6 GiB per GPU; 5.2 GiB stay on each while vLLM uses
#           0.6 of it; 62.9 GiB per host (estimated)
# Time:     about 1.5 hours on 8 H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  algorithm.use_kl_loss=true \
  algorithm.kl_penalty=low_var_kl \
  algorithm.kl_coef=0.01 \
  trainer.experiment_name=qwen2_5_vl_3b_kl_loss \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_3b_kl_loss \
  "$@"
