"""The length of a prompt as computed is the length that the processor makes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from lad_reasoner.pairs.prompt_length import PromptRuler
from lad_reasoner.pairs.tokens import ProcessorPixels
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import problem_text, prompt_text

SIZES = [(84, 84), (800, 1600), (1600, 1280), (1700, 850), (1000, 37), (30, 4000), (513, 700)]


@pytest.fixture
def model(repository) -> Path:
    """The demo's base: a Qwen2.5-VL with a tokenizer of its own and Qwen's chat template."""
    return repository / "plugin" / "lad_rehearsal" / "demo" / "base"


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.parametrize("bounds", [(3136, 12_845_056), (3136, 401_408), (262_144, 602_112)])
def test_exactly_the_processors_length(model, bounds) -> None:
    from PIL import Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(model, min_pixels=bounds[0], max_pixels=bounds[1])
    ruler = PromptRuler(processor=ProcessorPixels(28, *bounds), tokenizer=model)
    for references, sizes in ((1, 2), (2, 3)):
        text = prompt_text(problem_text(references))
        parts = [{"type": "text", "text": piece} for piece in text.split("<image>")]
        content = list(itertools.chain(*((part, {"type": "image"}) for part in parts)))[:-1]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        for chosen in itertools.islice(itertools.permutations(SIZES, sizes), 0, None, 23):
            images = [Image.new("RGB", size) for size in chosen]
            made = processor(text=[prompt], images=images, return_tensors="pt")["input_ids"].shape[1]
            assert ruler.measure(text, chosen) == made, chosen


def test_without_a_tokenizer_the_text_is_bounded_from_above(model) -> None:
    text = prompt_text(problem_text())
    words = len(text.split())
    bound = PromptRuler().measure(text, [(84, 84), (84, 84)]) - 18
    assert words < bound < 4 * words


@pytest.mark.frameworks
def test_no_tokenizer_there(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        PromptRuler(tokenizer=tmp_path).measure("x", [])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="no tokenizer"):
        PromptRuler(tokenizer=tmp_path).measure("x", [])
