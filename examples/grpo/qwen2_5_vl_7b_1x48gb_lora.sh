#!/usr/bin/env bash
# GRPO of Qwen2.5-VL-7B with LoRA on one GPU of 40 GB or more.
#
# Needs:    data/grpo.parquet and data/grpo_val.parquet (`lad build grpo --val-fraction 0.1`)
#           EasyR1 or verl with vLLM: pip install '.[easyr1]' or '.[vllm]'
# Command:  easyr1 config=examples/grpo/qwen2_5_vl_7b_1x48gb_lora.sh
#           bash examples/grpo/qwen2_5_vl_7b_1x48gb_lora.sh    (the same without our checks, from an EasyR1 environment)
# Hardware: 1 GPU of 40 GB or more, 48 GB of host memory (estimated)
# Memory:   an update takes about 19.1 GiB per GPU; 15.4 GiB stay on each while vLLM uses
#           0.5 of it; 15.4 GiB per host (estimated)
# Time:     about 24 hours on one H100 (estimated)

exec python -m verl.trainer.main \
  config=examples/grpo/qwen2_5_vl_3b_loco.yaml \
  data.max_response_length=512 \
  worker.actor.model.model_path=Qwen/Qwen2.5-VL-7B-Instruct \
  worker.actor.model.lora.rank=64 \
  worker.actor.model.lora.alpha=128 \
  worker.actor.model.lora.exclude_modules='.*visual.*' \
  worker.actor.optim.lr=1.0e-05 \
  worker.actor.fsdp.torch_dtype=bf16 \
  worker.rollout.gpu_memory_utilization=0.5 \
  trainer.experiment_name=qwen2_5_vl_7b_1x48gb_lora \
  trainer.n_gpus_per_node=1 \
  trainer.save_checkpoint_path=runs/grpo/qwen2_5_vl_7b_1x48gb_lora \
  "$@"
