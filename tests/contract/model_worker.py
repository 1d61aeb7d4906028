"""Save and load models in one process: a JSON request per line of stdin, a JSON reply per line of stdout.

It runs with the transformers that PYTHONPATH names, so that versions can be compared, and imports them once.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

#: Begins every reply: the libraries print to stdout too.
REPLY = "reply: "

SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]


def save(source: str, target: str, *, tied: bool) -> None:
    """Save a model under another name; an untied one gets an output layer of its own."""
    model, processor = AutoModelForImageTextToText.from_pretrained(source), AutoProcessor.from_pretrained(source)
    if not tied:
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
        torch.manual_seed(0)
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    processor.tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    model.save_pretrained(target)
    processor.save_pretrained(target)


def load(folder: str) -> dict[str, Any]:
    """Return token ids, missing weights and logits of one image and text, or the fault that ended it."""
    said: dict[str, Any] = {}
    try:
        processor = AutoProcessor.from_pretrained(folder)
        image = Image.linear_gradient("L").convert("RGB").resize((84, 84))
        text = "<|vision_start|><|image_pad|><|vision_end|> yes or no"
        inputs = processor(text=[text], images=[image], return_tensors="pt")
        said["ids"] = inputs["input_ids"].tolist()
        model, loaded = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
        said["missing"] = sorted(loaded["missing_keys"])
        with torch.no_grad():
            said["logits"] = model.float().eval()(**inputs).logits[0, -1].tolist()
    except Exception as fault:
        said["fault"] = f"{type(fault).__name__}: {fault}"
    return said


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        verb = {"save": save, "load": load}[request.pop("verb")]
        print(REPLY + json.dumps(verb(**request)), flush=True)
