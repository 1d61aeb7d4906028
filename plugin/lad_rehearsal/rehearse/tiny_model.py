"""Make the tiny model in a process of the trainer's interpreter, with the version of transformers that will read it.

    python -m lad_rehearsal.rehearse.tiny_model --family qwen2_5_vl --out DIR [--source DIR] [--tokenizer DIR]

Widths and depths shrink. What determines the number of image tokens (patch, merge, window), the vocabulary, the
special tokens and the layout of positions do not change.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, Final

from lad_rehearsal.demo.tiny import BASE, CHAT_TEMPLATE

__all__ = ["main", "make_model", "shrink"]

#: Sizes of the language model. Heads of 32 have 16 rotary frequencies, shared by time, row and column.
_HIDDEN, _HEADS, _HEAD, _LAYERS = 64, 2, 32, 2

#: Sizes of the vision tower.
_VISION_HIDDEN, _VISION_HEADS, _VISION_LAYERS = 32, 2, 2

#: Pixel bounds of the published processors; those of the embedded one suit the demo's small images.
_PIXELS: Final = {"qwen2_5_vl": (56 * 56, 16384 * 28 * 28), "qwen3_vl": (65536, 16777216)}

#: Maximum sequence length of the embedded tokenizer and model.
_LONGEST: Final = 32768

#: Weights and their indices, configs and hidden files, which are not copied.
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.index.json", "config.json", "*.md", ".*")


def make_model(family: str, out: Path, *, source: Path | None = None, tokenizer: Path | None = None) -> None:
    """Write a tiny model's folder.

    Args:
        family: A model type of transformers.
        out: Folder to write; it must not exist.
        source: The real model's folder; None uses the package's own tokenizer and processor.
        tokenizer: Folder of the tokenizer, if it is not ``source``.
    """
    if source is None and family == "qwen2_5_vl":
        _copy_base(out)
    elif source is None:
        _build_embedded(out)
    else:
        from transformers import AutoConfig

        for folder in (source, tokenizer or source):  # the tokenizer's files replace the model's
            shutil.copytree(folder, out, ignore=shutil.ignore_patterns(*_WEIGHTS), dirs_exist_ok=True)
        _save_random(shrink(AutoConfig.from_pretrained(source, trust_remote_code=False)), out)


def shrink(config: Any) -> Any:
    """Scale a config of Qwen2-VL, Qwen2.5-VL or Qwen3-VL down in place, and return it."""
    text, vision = config.get_text_config(), config.vision_config
    grouped = text.num_key_value_heads < text.num_attention_heads
    text.hidden_size, text.intermediate_size = _HIDDEN, 2 * _HIDDEN
    text.num_attention_heads, text.num_key_value_heads = _HEADS, 1 if grouped else _HEADS
    text.num_hidden_layers = _LAYERS
    text.max_window_layers = _LAYERS
    if getattr(text, "head_dim", None) is not None:
        text.head_dim = _HEAD
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types)[:_LAYERS]
    for name in ("rope_scaling", "rope_parameters"):
        if (rope := getattr(text, name, None)) and "mrope_section" in rope:
            setattr(text, name, {**rope, "mrope_section": _share(rope["mrope_section"], _HEAD // 2)})
    _shrink_vision(vision)
    return config


def _shrink_vision(vision: Any) -> None:
    vision.depth, vision.num_heads = _VISION_LAYERS, _VISION_HEADS
    if hasattr(vision, "embed_dim"):  # Qwen2-VL, where hidden_size is the language model's
        vision.embed_dim, vision.hidden_size = _VISION_HIDDEN, _HIDDEN
    else:
        vision.hidden_size, vision.out_hidden_size = _VISION_HIDDEN, _HIDDEN
        vision.intermediate_size = 2 * _VISION_HIDDEN
    if hasattr(vision, "fullatt_block_indexes"):
        vision.fullatt_block_indexes = [_VISION_LAYERS - 1]
    if hasattr(vision, "deepstack_visual_indexes"):
        vision.deepstack_visual_indexes = [0]


def _share(sections: list[int], total: int) -> list[int]:
    """Return sections of the same proportions with the given total.

    Example:
        >>> _share([16, 24, 24], 16)
        [4, 6, 6]
        >>> _share([24, 20, 20], 16)
        [6, 5, 5]
    """
    shares = [section * total // sum(sections) for section in sections]
    return [shares[0] + total - sum(shares), *shares[1:]]


def _save_random(config: Any, out: Path) -> None:
    """Write a model with random weights, and keep an existing generation config."""
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    config.dtype = "float32"
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    if (out / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(out)
    model.save_pretrained(out)


def _copy_base(out: Path) -> None:
    """Write the demo's base, which answers in the template, with the real model's limits on image size."""
    shutil.copytree(BASE, out)
    _edit(out / "processor_config.json", _widen)
    _edit(out / "config.json", lambda config: config["text_config"].update(max_position_embeddings=_LONGEST))
    _edit(out / "tokenizer_config.json", lambda config: config.update(model_max_length=_LONGEST))


def _widen(processor: dict[str, Any]) -> None:
    low, high = _PIXELS["qwen2_5_vl"]
    for part in ("image_processor", "video_processor"):
        processor[part]["size"] = {"shortest_edge": low, "longest_edge": high}


def _edit(path: Path, change: Any) -> None:
    tree = json.loads(path.read_text(encoding="utf-8"))
    change(tree)
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def _build_embedded(out: Path) -> None:
    """Write a random Qwen3-VL with the package's own tokenizer."""
    from transformers import (
        AutoTokenizer,
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(BASE, trust_remote_code=False, model_max_length=_LONGEST)
    low, high = _PIXELS["qwen3_vl"]
    images = {"size": {"shortest_edge": low, "longest_edge": high}, "patch_size": 16, "merge_size": 2}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**images, **half),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(out)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    text = config.get_text_config()
    text.vocab_size, text.max_position_embeddings = len(tokenizer), _LONGEST
    text.tie_word_embeddings = True
    text.bos_token_id, text.pad_token_id = tokenizer.pad_token_id, tokenizer.pad_token_id
    text.eos_token_id = tokenizer.eos_token_id
    _build_rope(text)
    _write_generation(out, tokenizer)
    _save_random(shrink(config), out)


def _build_rope(text: Any) -> None:
    """Set the position encoding of the published Qwen3-VL; a default config has a plain one."""
    rope = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    if hasattr(text, "rope_parameters"):
        text.rope_parameters = {**rope, "rope_theta": 5e6}
    else:
        text.rope_scaling, text.rope_theta = rope, 5e6


def _write_generation(out: Path, tokenizer: Any) -> None:
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    generation = {"eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id, "do_sample": False}
    (out / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")


def main() -> None:
    """Parse the command line and make the model."""
    parser = argparse.ArgumentParser(description="Make the tiny model of a rehearsal.")
    parser.add_argument("--family", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    given = parser.parse_args()
    make_model(given.family, given.out, source=given.source, tokenizer=given.tokenizer)


if __name__ == "__main__":
    main()
