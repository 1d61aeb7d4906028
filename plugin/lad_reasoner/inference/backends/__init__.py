"""The engines that answer: transformers, vLLM and OpenAI-compatible servers."""
