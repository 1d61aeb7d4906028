"""Text that trainers and models read as control, not as text. It must not come from data."""

from __future__ import annotations

import re
from typing import Final

from lad_reasoner.task.task import IMAGE_MARKER

__all__ = ["find_control_name", "find_control_text", "find_control_token"]

#: LLaMA-Factory's placeholders of media; every token ``<|...|>`` of a chat template (Qwen, Llama, Phi and others); and
#: special tokens of other forms of Qwen, LLaVA, InternVL, MiniCPM-V, Idefics, PaliGemma, Gemma, Llama 2, Mistral,
#: DeepSeek and GLM.
_CONTROL: Final = re.compile(
    r"<(?:image|video|audio|img|/img|image_placeholder|video_placeholder|audio_placeholder|IMG_CONTEXT)>"
    r"|<[|\uff5c][^\s<>|\uff5c]{1,64}[|\uff5c]>"
    r"|</?(?:tool_call|tool_response|start_of_turn|end_of_turn|start_of_image|end_of_image|s|bos|eos|pad|unk|mask|sop"
    r"|eop|end_of_utterance|fake_token_around_image|image_soft_token|global-img|box|ref|quad|point|slice|unit|unused\d+"
    r"|image_id|loc\d{4}|seg\d{3}|row_\d+_col_\d+)>"
    r"|\[/?(?:INST|IMG(?:_BREAK|_END)?|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|SYSTEM_PROMPT"
    r"|MODEL_SETTINGS|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX|THINK|ARGS|CALL_ID|g?MASK|s?MASK|CLS|SEP|PAD|UNK)\]"
    r"|<</?SYS>>"
)

#: The tags of a response. A response has them; a name of a category or defect must not.
_TAGS: Final = re.compile(r"</?(?:think|answer)>")


def find_control_token(text: str) -> str:
    """Return the first token in a text that trainers read as control, image markers included; empty if none."""
    found = _CONTROL.search(text)
    return found.group() if found else ""


def find_control_name(name: str) -> str:
    """Return what is wrong with the name of a category or defect, which stands in prompts; empty if nothing.

    Example:
        >>> from lad_reasoner.task.control_text import find_control_name
        >>> find_control_name("<think>"), find_control_name("bent < 2 mm")
        ('trainers read the token <think> as control', '')
    """
    found = _TAGS.search(name)
    token = found.group() if found else find_control_token(name)
    return f"trainers read the token {token} as control" if token else ""


def find_control_text(text: str, *, images: int = 0) -> str:
    """Return what is wrong with a text as part of a prompt or an answer with ``images`` markers; empty if nothing.

    Example:
        >>> from lad_reasoner.task.control_text import find_control_text
        >>> find_control_text("Describe the <video> mark.")
        'trainers read the token <video> as control'
        >>> find_control_text("<image> Is it sound?", images=1)
        ''
    """
    if token := find_control_token(text.replace(IMAGE_MARKER, " ") if images else text):
        return f"trainers read the token {token} as control"
    if (markers := text.count(IMAGE_MARKER)) != images:
        return f"the text has {markers} {IMAGE_MARKER} for {images} images"
    return ""
