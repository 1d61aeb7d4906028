"""What EasyR1 uses of vLLM, on the CPU, for rehearsals: sampling is by transformers, one token after the other.

The folder is put on the path of a rehearsal only (see `lad_rehearsal.easyr1_cpu.environment`) and refuses to
be imported beside a GPU or vLLM itself. EasyR1 imports its rollout engine in each of its processes before it asks for
a device, so this is also where torch is told that there is none.
"""

from .guard import refuse_gpu, refuse_vllm

refuse_vllm()
refuse_gpu()

from .devices import apply_patches  # noqa: E402

apply_patches()

from .engine import LLM, CompletionOutput, RequestOutput, SamplingParams  # noqa: E402

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams"]
