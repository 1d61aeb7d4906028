"""A tiny model with random weights and pair parquets drawn on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.pair_files import image, make_pair, png_of_squares, write_pairs

from lad_reasoner.pairs.schema import Choice, Pair

CATEGORIES = ("juice_bottle", "breakfast_box", "screw_bag", "splicing_connectors", "pushpins")


def draw_pairs(
    count: int,
    *,
    seed: int = 0,
    references: int = 1,
    sizes: tuple[tuple[int, int], ...] = ((84, 84),),
    dataset: str = "mvtec_loco",
    choice: Choice | None = None,
) -> list[Pair]:
    """Return pairs over five categories, each with its own fixed reference(s)."""
    rng = np.random.default_rng(seed)
    shots = {
        category: [image(png_of_squares(rng), f"{category}/train/good/{k:03}.png") for k in range(references)]
        for category in CATEGORIES
    }
    pairs = []
    for index in range(count):
        category = CATEGORIES[index * len(CATEGORIES) // count]
        kind = ("good", "logical", "structural")[int(rng.integers(3))]
        path = f"{category}/test/{kind}/{index:03}.png"
        query = image(png_of_squares(rng, *sizes[index % len(sizes)]), path)
        defect = f"{kind}_{index % 3}"
        pairs.append(make_pair(category, kind, shots[category], query, defect=defect, dataset=dataset, choice=choice))
    return pairs


@pytest.fixture(scope="session")
def make_pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that draws a pair parquet."""

    def make(count: int = 20, **options: object) -> Path:
        path = tmp_path_factory.mktemp("pairs") / "loco.parquet"
        return write_pairs(path, draw_pairs(count, **options), row_group_size=8)

    return make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL of 0.8 million random weights, spread wide enough that its responses differ."""
    torch = pytest.importorskip("torch")
    from lad_rehearsal.demo.tiny import build_model, build_processor, save_tiny

    processor = build_processor(["the top row is ok extra missing <think> ok </think><answer> yes </answer> no"])
    model = build_model(processor.tokenizer, seed=3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed" not in name:
                weight.mul_(2.5)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny(folder, model=model, processor=processor)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-VL of random weights with two layers of deepstack features."""
    torch = pytest.importorskip("torch")
    from transformers import Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    from lad_rehearsal.demo.tiny import SPECIAL_TOKENS, build_processor

    base = build_processor(["the top row is ok extra missing <think> ok </think><answer> yes </answer> no"])
    ids = {token: base.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    pixels = {"size": {"shortest_edge": 64 * 64, "longest_edge": 96 * 96}, "patch_size": 16}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=base.tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=base.chat_template,
    )
    text = {
        "vocab_size": len(base.tokenizer),
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "initializer_range": 0.15,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [4, 6, 6]},
    }
    vision = {
        "depth": 3,
        "hidden_size": 64,
        "num_heads": 2,
        "intermediate_size": 128,
        "out_hidden_size": 96,
        "patch_size": 16,
        "deepstack_visual_indexes": [0, 1],
        "num_position_embeddings": 64,
        "initializer_range": 0.15,
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = base.tokenizer.eos_token_id
    model.generation_config.pad_token_id = base.tokenizer.pad_token_id
    folder = tmp_path_factory.mktemp("model") / "tiny-qwen3"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
