"""Names that EasyR1 imports for adapters; `vllm.engine` merges adapters into the weights instead."""
