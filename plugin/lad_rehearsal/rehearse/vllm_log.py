"""vLLM's settings and messages in a trainer's log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["read_messages", "read_settings"]

#: Options of the engine that a rehearsal takes over from the GPU run.
_SETTINGS: Final = (
    "max_model_len",
    "max_num_batched_tokens",
    "enable_chunked_prefill",
    "limit_mm_per_prompt",
    "max_num_seqs",
    "enable_lora",
    "max_lora_rank",
)

_LINE: Final = re.compile(r"(?P<level>INFO|WARNING|ERROR) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] (?P<text>.*\S)")

#: Information about the limits; vLLM's other information is not of interest here.
_ABOUT_LIMITS: Final = re.compile(
    r"KV cache|concurrency|chunked prefill|max_num_batched_tokens|max[ _]model[ _]len|encoder cache|multi-?modal|LoRA",
    re.IGNORECASE,
)

#: Messages about this machine, its CPU build, or verl's way of starting vLLM, which do not concern the config.
_IRRELEVANT: Final = re.compile(
    r"triton|LD_PRELOAD|CUDA runtime|enforce eager|inductor|oneDNN|OpenMP|NUMA|pin_memory|CUDAGraph|VLLM_CPU"
    r"|CPU backend|CPU_ATTN|runtime env|warmup|for KV cache on node|LoRA dynamic loading|raw prompts",
    re.IGNORECASE,
)


def read_settings(log: Path) -> dict[str, str]:
    """Return the engine settings that verl gave to vLLM, as option and value ("on" for a switch).

    verl prints vLLM's command line in the trainer's output.
    """
    words = re.findall(r"^(?:\S*\([^)]*\)\S*)?\s*[\[ ]'([^']*)'", log.read_text("utf-8", "replace"), re.MULTILINE)
    following = dict(zip(words, [*words[1:], ""], strict=True))
    given = {name: following[f"--{name}"] for name in _SETTINGS if f"--{name}" in following}
    return {name: "on" if value.startswith("--") else value for name, value in given.items()}


def read_messages(log: Path) -> list[str]:
    """Return vLLM's warnings and errors, and its information about limits, each once and in order."""
    found = _LINE.finditer(log.read_text(encoding="utf-8", errors="replace"))
    kept = [
        f"{line['level'].lower()}: {line['text']}"
        for line in found
        if not _IRRELEVANT.search(line["text"]) and (line["level"] != "INFO" or _ABOUT_LIMITS.search(line["text"]))
    ]
    return list(dict.fromkeys(kept))
