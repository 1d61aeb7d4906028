"""Names that EasyR1 imports for adapters; `vllm.engine` adds an adapter to the weights instead."""
