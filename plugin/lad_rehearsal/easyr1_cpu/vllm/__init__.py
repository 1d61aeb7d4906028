"""Replacement for the part of vLLM that EasyR1 uses, for rehearsals on a CPU; transformers samples the responses.

Only a rehearsal has this folder on its path (see `lad_rehearsal.easyr1_cpu.environment`), and importing it with a GPU
or with vLLM is an error. EasyR1 imports its rollout engine in each process before it requests a device, so this module
also patches torch.
"""

from .guard import refuse_gpu, refuse_vllm

refuse_vllm()
refuse_gpu()

from .devices import apply_patches  # noqa: E402

apply_patches()

from .engine import LLM, CompletionOutput, RequestOutput, SamplingParams  # noqa: E402

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams"]
