"""A LLaVA with random weights: another architecture than the Qwen-VL family, which vLLM serves as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lad_reasoner.inference.backends.messages import chat_pictures
from lad_reasoner.inference.protocol import Question
from lad_rehearsal.demo.tiny import build_processor

IMAGE = "<|image_pad|>"

#: A turn per message; each image is one marker, which the processor repeats for every patch.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\n' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|image_pad|>{% elif 'text' in part %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if not (loop.last and continue_final_message) %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tiny_llava(folder: Path) -> Path:
    """Write a LLaVA model folder and return it; an image of any size becomes 16 tokens."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = build_processor(
        ["the top row is ok extra missing <think> ok </think><answer> yes </answer> no"]
    ).tokenizer
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, num_hidden_layers=2, image_size=56, patch_size=14, projection_dim=64),
        text_config=LlamaConfig(
            **sizes,
            num_hidden_layers=2,
            vocab_size=len(tokenizer),
            max_position_embeddings=2048,
            eos_token_id=tokenizer.eos_token_id,
            initializer_range=0.3,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    # transformers 5.5 puts "model." before all names but the head's, which vLLM does not read; the hub's have none.
    weights = {name.removeprefix("model."): weight for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def generate(model: Path, questions: Sequence[Question], new_tokens: int) -> list[str]:
    """Return what transformers' own ``generate`` writes."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    network, processor = AutoModelForImageTextToText.from_pretrained(model), AutoProcessor.from_pretrained(model)
    texts = []
    for question in questions:
        parts = chat_pictures(question, Path())
        content = [{"type": "image", "image": part["image_pil"]} if "image_pil" in part else part for part in parts]
        chat = [{"role": "user", "content": content}]
        inputs = processor.apply_chat_template(
            chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        with torch.inference_mode():
            output = network.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
        texts.append(processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts
