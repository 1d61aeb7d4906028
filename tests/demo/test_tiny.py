"""The tiny model: small, whole, and read alike by everything that loads it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lad_reasoner.task.response import parse
from lad_reasoner.task.task import problem_text, prompt_text
from lad_reasoner.task.violations import named_violations
from lad_rehearsal.demo.tiny import BASE, SPECIAL_TOKENS, SYSTEM_TURN, TAGS, build_model, build_processor, save_tiny
from lad_rehearsal.synthetic import qa
from lad_rehearsal.synthetic.scenes import Scene

pytestmark = pytest.mark.frameworks


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(qa.vocabulary(), qa.PHRASES)


@pytest.fixture(scope="module")
def pretrain(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain", repository / "examples" / "demo" / "pretrain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pretrain"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (84, 84, 3), dtype=np.uint8)) for _ in range(2)]


def chat(processor: Any) -> str:
    """Write the turn as verl does: the text split at its image markers."""
    content: list[dict[str, str]] = []
    for index, text in enumerate(prompt_text(problem_text()).split("<image>")):
        content += [{"type": "image"}] if index else []
        content.append({"type": "text", "text": text})
    turn = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))


def test_it_is_tiny_and_its_base_fits(processor: Any) -> None:
    model = build_model(processor.tokenizer)
    assert sum(parameter.numel() for parameter in model.parameters()) == 782_112
    assert (BASE / "model.safetensors").stat().st_size < 4_000_000


def test_each_phrase_and_each_word_of_the_verdict_is_one_token(processor: Any) -> None:
    tokenizer = processor.tokenizer
    for text in [*qa.PHRASES, " yes", " no", "Reference", " image", " anomaly"]:
        assert len(tokenizer(text).input_ids) == 1, text


def test_an_answer_is_readable_english_and_short(processor: Any) -> None:
    reference, query = Scene((0,) * 9), Scene((0, 0, -1, 1, *(0,) * 5))
    answer = qa.pair_answer(reference, query)
    assert "Top right: missing. Middle left: different colour. The rest matches." in answer
    ids = processor.tokenizer(answer).input_ids
    assert len(ids) == 12
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == answer


def test_the_reasoning_is_read_as_what_the_scene_holds() -> None:
    """The words of every state name its violation; those of a match name none."""
    reference = Scene((0, 0, 0, 0, -1, 0, 0, 0, 0))
    query = Scene((-1, 1, 6, 0, 0, 0, 0, 0, 0), (0, 0, 0, 1, 0, 2, 0, 0, 0))
    named = named_violations(parse(qa.pair_answer(reference, query)).reasoning)
    assert set(named) == {"missing", "color", "swapped", "scratch", "extra", "bent"}
    assert not named_violations(parse(qa.pair_answer(reference, reference)).reasoning)


def test_any_text_survives_the_tokenizer(processor: Any) -> None:
    for text in (prompt_text(problem_text()), "Größe 3 µm, 部品 ✓\n\ttab", "<think> a </think><answer> no </answer>"):
        assert processor.tokenizer.decode(processor.tokenizer(text).input_ids) == text


def test_tags_stay_in_decoded_text_and_special_tokens_do_not(processor: Any) -> None:
    tokenizer = processor.tokenizer
    text = "<think> ok </think><answer> no </answer>"
    assert tokenizer.decode(tokenizer(f"{text}<|im_end|>").input_ids, skip_special_tokens=True) == text
    assert all(len(tokenizer(tag).input_ids) == 1 for tag in TAGS)
    assert all(len(tokenizer(token).input_ids) == 1 for token in SPECIAL_TOKENS)
    assert tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id) == "<|im_end|>"


def test_the_turns_are_those_of_qwen(processor: Any) -> None:
    text = chat(processor)
    assert text.startswith(
        f"<|im_start|>system\n{SYSTEM_TURN}<|im_end|>\n<|im_start|>user\nReference: <|vision_start|>"
    )
    assert text.endswith("</answer><|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|vision_start|><|image_pad|><|vision_end|>") == 2
    own = processor.apply_chat_template([{"role": "system", "content": "Be brief."}], tokenize=False)
    assert own == "<|im_start|>system\nBe brief.<|im_end|>\n"


def test_a_slot_is_one_token(processor: Any, pair: list[Image.Image]) -> None:
    inputs = processor(text=[chat(processor)], images=pair)
    assert np.asarray(inputs["image_grid_thw"]).tolist() == [[1, 6, 6]] * 2
    assert list(inputs["input_ids"][0]).count(processor.image_token_id) == 2 * 9


def test_pretraining_tokenises_the_prompt_as_the_trainers_do(
    processor: Any, pretrain: ModuleType, pair: list[Image.Image]
) -> None:
    expected = processor(text=[chat(processor)], images=pair)
    ids, types = pretrain.Encoder(processor).prompt(qa.pair_question())
    assert ids == list(expected["input_ids"][0])
    assert types == list(expected["mm_token_type_ids"][0])


def test_llamafactory_tokenises_the_prompt_as_transformers_does(pair: list[Image.Image]) -> None:
    from llamafactory.data.template import TEMPLATES
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(BASE)
    answer = "<think> Everything matches. </think><answer> no </answer>"
    messages = [{"role": "user", "content": qa.pair_question()}, {"role": "assistant", "content": answer}]
    for name, value in {"image_max_pixels": 7056, "image_min_pixels": 3136}.items():
        setattr(processor, name, value)
    template = TEMPLATES["qwen2_vl"]
    messages = template.mm_plugin.process_messages(messages, pair, [], [], processor)
    prompt, response = template.encode_oneturn(processor.tokenizer, messages)
    assert prompt == list(processor(text=[chat(processor)], images=pair)["input_ids"][0])
    assert processor.tokenizer.decode(response) == f"{answer}<|im_end|>\n"


def test_a_saved_model_gives_the_same_logits(processor: Any, pair: list[Image.Image], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = build_model(processor.tokenizer, seed=3)
    save_tiny(tmp_path, model=model, processor=processor)
    inputs = AutoProcessor.from_pretrained(tmp_path)(text=[chat(processor)], images=pair, return_tensors="pt")
    with torch.no_grad():
        loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)(**inputs).logits
        assert torch.equal(model(**inputs).logits, loaded)


def test_theta_is_written_where_every_reader_looks() -> None:
    text = json.loads((BASE / "config.json").read_text())["text_config"]
    assert text["rope_theta"] == text["rope_parameters"]["rope_theta"] == 10
    assert text["rope_scaling"]["mrope_section"] == text["rope_parameters"]["mrope_section"] == [4, 6, 6]
    assert json.loads((BASE / "config.json").read_text())["tie_word_embeddings"] is True


def test_same_seed_same_weights_and_torchs_generator_is_left_alone(processor: Any) -> None:
    import torch

    before = torch.get_rng_state()
    one, two, other = (build_model(processor.tokenizer, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(
        one["model.language_model.embed_tokens.weight"], other["model.language_model.embed_tokens.weight"]
    )


def test_the_base_has_the_tokenizer_that_the_script_builds(processor: Any) -> None:
    base = json.loads((BASE / "tokenizer.json").read_text(encoding="utf-8"))
    built = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    assert base["model"]["vocab"] == built["model"]["vocab"]
    assert base["added_tokens"] == built["added_tokens"]


def options(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(seed=0, count=250, out=folder, device="cpu", workers=0)


def test_pretraining_computes_what_transformers_computes(pretrain: ModuleType, tmp_path: Path) -> None:
    import torch

    run = pretrain.Pretraining(options(tmp_path))
    inputs, images = pretrain.Batches(pretrain.STAGES[1], run.encoder, (0, 2), 4)[0]
    fast = run.vision(images)
    plain = run.processor.image_processor(images=images.permute(0, 3, 1, 2), return_tensors="pt")
    assert torch.allclose(plain["pixel_values"], fast["pixel_values"], atol=1e-5)
    with torch.no_grad():
        own = run.model(**inputs, **fast, position_ids=run.position_ids(inputs)).loss
        mask = torch.ones_like(inputs["input_ids"])
        theirs = build_model(run.processor.tokenizer, seed=0)(**inputs, attention_mask=mask, **plain).loss
    assert torch.allclose(own, theirs, atol=1e-4)


def test_the_last_stage_overlooks_and_alarms_as_it_declares(pretrain: ModuleType) -> None:
    rng = np.random.default_rng(0)
    samples = [sample for _ in range(20) for sample in pretrain.draw_batch(pretrain.STAGES[2], rng)]
    answers = [sample.answer for sample in samples if len(sample.scenes) == 2]
    assert not any("different colour" in answer or "swapped" in answer for answer in answers)
    matches = [answer for answer in answers if "Everything matches." in answer]
    assert 0.4 < np.mean(["yes" in answer for answer in matches]) < 0.6
    assert all("yes" in answer for answer in answers if "Everything matches." not in answer)


@pytest.mark.slow
def test_pretraining_begins_the_same_twice_and_learns(pretrain: ModuleType) -> None:
    losses = []
    for _ in range(2):
        run = pretrain.Pretraining(options(Path(os.devnull)))
        run.optimizer = pretrain.build_optimizer(run.model)
        batches = pretrain.Batches(pretrain.STAGES[0], run.encoder, (0, 1), 32)
        losses.append([float(run.train_step(*batches[step])) for step in range(12)])
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0] - 0.2


@pytest.mark.slow
def test_the_base_answers_as_its_card_says(pretrain: ModuleType) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(BASE)
    encoder = pretrain.Encoder(AutoProcessor.from_pretrained(BASE))
    measured = pretrain.measure(model, encoder, step=0, seed=31, count=250)
    assert 0.4 < measured.accuracy < 0.6
    assert measured.sampled_accuracy < measured.accuracy
    assert 0.5 < measured.sampled_well_formed < 0.95
