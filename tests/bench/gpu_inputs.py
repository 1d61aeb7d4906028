"""The model, rows and questions that the bench for a GPU makes: the shape of Qwen2.5-VL-3B and random weights."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np
from tests.bench.gpu_figures import Bench

#: The published config.json of Qwen2.5-VL-3B-Instruct, where it differs from the defaults of transformers.
TEXT: Final = {
    "vocab_size": 151_936,
    "hidden_size": 2_048,
    "intermediate_size": 11_008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128_000,
    "max_window_layers": 70,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VISION: Final = {
    "depth": 32,
    "hidden_size": 1_280,
    "intermediate_size": 3_420,
    "num_heads": 16,
    "out_hidden_size": 2_048,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}


def read_config(folder: Path, shape: str) -> Any:
    """Return the model's config: the shape of Qwen2.5-VL-3B over the folder's special tokens, or the folder's own."""
    from transformers import Qwen2_5_VLConfig

    own = Qwen2_5_VLConfig.from_pretrained(folder)
    if shape == "tiny":
        return own
    ids = {name: getattr(own.get_text_config(), name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokens = {name: value for name, value in own.to_dict().items() if name.startswith(("image_", "video_", "vision_"))}
    tokens.pop("vision_config", None)
    return Qwen2_5_VLConfig(text_config={**TEXT, **ids}, vision_config=VISION, tie_word_embeddings=True, **tokens)


def build_network(folder: Path, shape: str, device: str, dtype: Any) -> Any:
    """Return a network with random weights."""
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForImageTextToText.from_config(read_config(folder, shape), dtype=dtype)


def write_model(bench: Bench) -> None:
    """Write the model's folder, with the tokenizer and the processor of the package's own base."""
    import torch

    from lad_rehearsal.rehearse.tiny_model import make_model

    make_model("qwen2_5_vl", bench.folder)
    (bench.folder / "model.safetensors").unlink()
    build_network(bench.folder, bench.shape, bench.device, torch.bfloat16).save_pretrained(bench.folder)


def draw_picture(width: int, height: int, seed: int) -> Any:
    """Return an image of large blocks, which a PNG holds in as few bytes as a photo's flat background."""
    from PIL import Image

    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def make_row(bench: Bench, length: int) -> dict[str, Any]:
    """Return the paper's question about two images and a random response, ``length`` tokens together."""
    import torch
    from transformers import AutoProcessor

    from lad_reasoner.task.task import problem_text, prompt_text

    processor = AutoProcessor.from_pretrained(bench.folder)
    text = f"<|im_start|>user\n{prompt_text(problem_text())}<|im_end|>\n<|im_start|>assistant\n"
    text = text.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    pictures = [draw_picture(*bench.sizes.picture, seed) for seed in range(2)]
    row = dict(processor(text=[text], images=pictures, return_tensors="pt"))
    more = length - row["input_ids"].shape[1]
    assert more > 0, f"the prompt has {-more} tokens more than {length}"
    fill = {"input_ids": 0, "attention_mask": 1, "mm_token_type_ids": 0}
    for name in fill.keys() & row.keys():
        row[name] = torch.cat([row[name], torch.full((1, more), fill[name])], dim=1)
    row["input_ids"][0, -more:] = torch.randint(100, (more,), generator=torch.Generator().manual_seed(0))
    return {name: value.to(bench.device) for name, value in row.items()}


def draw_questions(photo: tuple[int, int], count: int) -> list[Any]:
    """Return questions with one fixed reference, as one-shot evaluation has them.

    They are not scored: random weights give no answer, and each would cost a second prefill.
    """
    from lad_reasoner.inference.protocol import Question
    from lad_reasoner.pairs.schema import Image
    from lad_reasoner.task.task import problem_text, prompt_text

    def draw(seed: int) -> Image:
        buffer = io.BytesIO()
        draw_picture(*photo, seed).save(buffer, "JPEG", quality=95)
        return Image(data=buffer.getvalue(), path=f"{seed}.jpg", sha256=f"{seed}")

    reference, prompt = draw(0), prompt_text(problem_text())
    return [Question(f"pair-{seed}", prompt, (reference, draw(seed)), scored=False) for seed in range(1, count + 1)]
