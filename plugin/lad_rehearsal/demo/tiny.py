"""A Qwen2.5-VL with 0.8 million parameters: the same architecture, kind of tokenizer and chat template.

The demo trains it; rehearsals and tests load it instead of the model with 3 billion parameters. transformers,
LLaMA-Factory and verl read it like the real model. Its sizes come from measurements on two CPU cores
(docs/demo-model.md); `examples/demo/pretrain.py` trains the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.task.task import problem_text, prompt_text

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

__all__ = [
    "BASE",
    "CHAT_TEMPLATE",
    "IMAGE_SIZE",
    "SYSTEM_TURN",
    "build_config",
    "build_model",
    "build_processor",
    "save_tiny",
]

#: The pretrained base that ships with the package.
BASE: Final = Path(str(files(__package__))) / "base"

#: 84 px are three slots of 28 px, and 28 px are one merged token of Qwen2.5-VL: 9 tokens per image.
IMAGE_SIZE: Final = 84

#: Qwen2.5-VL's default system turn.
SYSTEM_TURN: Final = "You are a helpful assistant."

SPECIAL_TOKENS: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

#: One token each and not special (they stay in decoded text), like the think tags of Qwen3.
TAGS: Final = ("<think>", "</think>", "<answer>", "</answer>")

#: Qwen2.5-VL's turns: the default system turn is added if there is none; images and videos become vision tokens.
CHAT_TEMPLATE: Final = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n" + SYSTEM_TURN + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role + '\n' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

#: The real model's 1e6 cannot distinguish three cells with 16 frequencies; 10 can (measured).
_ROPE_THETA: Final = 10.0
_MROPE_SECTION: Final = (4, 6, 6)


def build_processor(texts: Iterable[str] = (), phrases: Sequence[str] = ()) -> Qwen2_5_VLProcessor:
    """Return a processor with one token for each phrase, and for each word of ``texts`` and of the task's prompt."""
    from transformers import Qwen2_5_VLProcessor, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor
    from transformers.tokenization_utils_base import AddedToken

    vocabulary, merges = _train_bpe([*texts, prompt_text(problem_text()), SYSTEM_TURN, "system\nuser\nassistant\n"])
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=4096)
    tokenizer.eos_token = SPECIAL_TOKENS[2]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in (*TAGS, *phrases)])
    # At most the pixels of one demo image: larger images shrink to it, smaller ones keep their size.
    size = {"shortest_edge": 56 * 56, "longest_edge": IMAGE_SIZE * IMAGE_SIZE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(size)),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=dict(size)),
        chat_template=CHAT_TEMPLATE,
    )


def _train_bpe(texts: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges of a byte-level BPE that merges until every word is one token."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=2000, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    for tag in TAGS:  # tags are tokens already and need no merges
        texts = [text.replace(tag, " ") for text in texts]
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def build_config(tokenizer: Any) -> Qwen2_5_VLConfig:
    """Return the configuration: hidden 96, 4 layers, 3 heads; vision depth 3, hidden 64, 2 heads."""
    from transformers import Qwen2_5_VLConfig

    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "max_position_embeddings": 4096,
        "max_window_layers": 4,
        "initializer_range": 0.05,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "rope_parameters": {
            "rope_type": "default",
            "type": "default",
            "rope_theta": _ROPE_THETA,
            "mrope_section": list(_MROPE_SECTION),
        },
    }
    vision = {
        "depth": 3,
        "hidden_size": 64,
        "num_heads": 2,
        "intermediate_size": 128,
        "out_hidden_size": 96,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [2],
        "initializer_range": 0.05,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build_model(tokenizer: Any, *, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """Return the model with random weights from ``seed``; the state of torch's generator is restored."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    generation = model.generation_config
    generation.eos_token_id = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    generation.pad_token_id = tokenizer.pad_token_id
    generation.do_sample, generation.max_new_tokens = False, 64
    return model


def save_tiny(
    folder: Path, *, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, dtype: str = "float32"
) -> None:
    """Write a model folder that transformers 4.57 and 5, LLaMA-Factory and verl read in the same way.

    transformers 5 stores theta only in ``rope_parameters``; readers of ``rope_theta`` and ``rope_scaling`` would
    silently use a theta of 1e6. Both forms are written.
    """
    import torch

    model.to(getattr(torch, dtype)).save_pretrained(folder)
    processor.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    spelled = {
        "rope_theta": _ROPE_THETA,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": list(_MROPE_SECTION)},
    }
    config["text_config"] |= spelled
    config |= {"tie_word_embeddings": True}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
