"""The batched, prefix-sharing backend against what transformers itself answers."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lad_reasoner.inference.answer_score import answer_step, forced_text, spelling_tokens
from lad_reasoner.inference.backends.load import load_backend
from lad_reasoner.inference.protocol import Answer, BackendOptions, Question
from lad_reasoner.pairs.reader import PairRecord, iter_pairs
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.response import parse, template_regex
from lad_reasoner.task.task import prompt_text

pytestmark = pytest.mark.frameworks


def ask(
    model: Path, pairs: list[PairRecord], *, samples: tuple[int, ...] = (0,), **options: object
) -> dict[tuple[str, int], Answer]:
    options = {"max_new_tokens": 64 if options.get("structured") else 24} | options
    backend = load_backend("transformers", BackendOptions(model=str(model), device="cpu", **options))
    questions = [Question(pair.pair_id, prompt_text(pair.problem), pair.images, samples) for pair in pairs]
    return {(answer.pair_id, answer.sample): answer for answer in backend.answer(questions)}


def encode_one(processor, pair: PairRecord, begun: str = ""):
    """Return the inputs of a pair, as the usual loop over pairs makes them, and of the beginning of a response."""
    from PIL import Image as Pillow

    content = []
    for index, part in enumerate(prompt_text(pair.problem).split("<image>")):
        content += [{"type": "image"}] * (index > 0) + [{"type": "text", "text": part}]
    message = {"role": "user", "content": content}
    chat = processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    pictures = [Pillow.open(io.BytesIO(image.data)) for image in pair.images]
    return processor(text=[chat + begun], images=pictures, return_tensors="pt")


def generate_one(model, processor, pair: PairRecord) -> list[int]:
    """Return the response's tokens as the usual loop over pairs gets them."""
    inputs = encode_one(processor, pair)
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def reference(tiny_model: Path):
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model).eval(), AutoProcessor.from_pretrained(
        tiny_model
    )


@pytest.mark.parametrize(("family", "references"), [("tiny_model", 1), ("tiny_model", 2), ("tiny_qwen3", 2)])
def test_greedy_responses_are_those_of_generate_token_by_token(request, make_pairs, family, references) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = request.getfixturevalue(family)
    # Images of several sizes, so that prefix and rest are padded differently from row to row.
    pairs = list(iter_pairs(make_pairs(15, references=references, sizes=((84, 84), (56, 84), (120, 60)))))
    answers = ask(folder, pairs, batch_size=8)
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(folder).eval(),
        AutoProcessor.from_pretrained(folder),
    )
    texts = set()
    for pair in pairs:
        expected = generate_one(model, processor, pair)
        answer = answers[pair.pair_id, 0]
        assert answer.response_tokens == len(expected)
        assert answer.response == processor.tokenizer.decode(expected, skip_special_tokens=True)
        texts.add(answer.response)
    assert len(texts) > 3  # the model does tell pairs apart, so the comparison means something


def test_batches_prefixes_and_caches_change_nothing(tiny_model, make_pairs) -> None:
    pairs = list(iter_pairs(make_pairs(12, sizes=((84, 84), (56, 84)))))
    alone, together = ask(tiny_model, pairs, batch_size=1), ask(tiny_model, pairs[::-1], batch_size=12)
    assert {key: answer.response for key, answer in alone.items()} == {
        key: answer.response for key, answer in together.items()
    }
    for key, answer in alone.items():
        assert answer.score == pytest.approx(together[key].score, abs=1e-5)


def test_a_sampled_response_depends_on_seed_pair_and_sample_alone(tiny_model, make_pairs) -> None:
    pairs = list(iter_pairs(make_pairs(6)))
    first = ask(tiny_model, pairs, samples=(0, 1, 2), temperature=1.0, batch_size=6)
    later = ask(tiny_model, pairs[4:], samples=(2,), temperature=1.0, batch_size=1)
    assert {answer.response for key, answer in later.items()} == {first[key].response for key in later}
    other = ask(tiny_model, pairs, samples=(0,), temperature=1.0, seed=1)
    assert any(answer.response != first[key].response for key, answer in other.items())
    assert len({answer.response for answer in first.values()}) > 9


def test_structured_responses_keep_to_the_template_even_from_random_weights(tiny_model, make_pairs) -> None:
    pairs = list(iter_pairs(make_pairs(8)))
    for options in ({}, {"temperature": 1.0}):
        answers = ask(tiny_model, pairs, structured=True, batch_size=4, **options)
        for answer in answers.values():
            assert parse(answer.response).well_formed, answer.response
            assert parse(answer.response).answer in {"yes", "no"}
            assert re.fullmatch(template_regex(64), answer.response)
            assert answer.score_source == "answer_token"
            assert answer.finish_reason == "stop"


def test_a_template_that_cannot_fit_is_refused(tiny_model) -> None:
    with pytest.raises(UsageError, match="--max-new-tokens"):
        load_backend("transformers", BackendOptions(model=str(tiny_model), structured=True, max_new_tokens=6))


@pytest.mark.parametrize("room", [40, 41, 48])
def test_the_answer_fits_however_short_the_response_must_be(tiny_model, make_pairs, room) -> None:
    pairs = list(iter_pairs(make_pairs(8)))
    answers = ask(tiny_model, pairs, structured=True, temperature=1.0, max_new_tokens=room).values()
    assert all(answer.finish_reason == "stop" and parse(answer.response).well_formed for answer in answers)


def test_a_prompt_that_is_too_long_costs_only_its_pair(tiny_model, make_pairs, monkeypatch) -> None:
    sound, wordy = list(iter_pairs(make_pairs(2)))
    backend = load_backend("transformers", BackendOptions(model=str(tiny_model), device="cpu", max_new_tokens=8))
    prompt = prompt_text(sound.problem)
    questions = [
        Question(wordy.pair_id, prompt + " word" * 5000, wordy.images, (0, 1)),
        Question(sound.pair_id, prompt, sound.images),
    ]
    *failed, answer = backend.answer(questions)
    assert [(failure.pair_id, failure.sample) for failure in failed] == [(wordy.pair_id, 0), (wordy.pair_id, 1)]
    assert all("tokens; the model allows" in failure.reason for failure in failed)
    assert answer.pair_id == sound.pair_id


def expected_score(reference, pair: PairRecord, begun: list[int]) -> float:
    """Return P(yes) / (P(yes) + P(no)) after the tokens ``begun``, from transformers' own forward pass."""
    import torch

    model, processor = reference
    inputs = encode_one(processor, pair)
    more = torch.tensor([begun])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], more], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(more)], dim=1)
    with torch.no_grad():
        chances = model(**inputs).logits[0, -1].double().softmax(0)
    yes, no = (float(chances[spelling_tokens(processor.tokenizer, label)].sum()) for label in ("yes", "no"))
    return yes / (yes + no)


def test_a_response_without_an_answer_is_scored_where_one_is_forced(tiny_model, make_pairs, reference) -> None:
    pairs = list(iter_pairs(make_pairs(5)))
    for pair in pairs:
        answer = ask(tiny_model, [pair])[pair.pair_id, 0]
        begun = reference[1].tokenizer(forced_text(answer.response))["input_ids"]
        assert answer.score_source == "forced"
        assert answer.score == pytest.approx(expected_score(reference, pair, begun), abs=1e-4)


def test_a_response_with_an_answer_is_scored_where_it_stands(tiny_model, make_pairs, reference, monkeypatch) -> None:
    from lad_reasoner.inference.backends import transformers as transformers_backend

    seen = []

    def spy(tokens, text, tokenizer):
        step = answer_step(tokens, text, tokenizer)
        seen.append((tokens, step))
        return step

    monkeypatch.setattr(transformers_backend, "answer_step", spy)
    for pair in iter_pairs(make_pairs(5)):
        answer = ask(tiny_model, [pair], structured=True)[pair.pair_id, 0]
        tokens, step = seen[-1]
        answered = reference[1].tokenizer.decode([tokens[step]]).strip().lower()
        assert answered
        assert str(parse(answer.response).answer).startswith(answered)  # the template allows any spelling in tokens
        assert answer.score_source == "answer_token"
        assert answer.score == pytest.approx(expected_score(reference, pair, tokens[:step]), abs=1e-4)


FAULTS = [
    ({"model": "config-only"}, DataError, "the model cannot be loaded: .*no weights"),
    ({"model": "./config-onlyy"}, DataError, "./config-onlyy: neither a folder nor a name on the Hugging Face hub"),
    ({"model": "other"}, UsageError, "type is 'llama'; this backend supports only qwen2_5_vl, qwen2_vl, qwen3_vl"),
    ({"device": "gpu"}, UsageError, "--device"),
]


@pytest.mark.parametrize(("options", "error", "message"), FAULTS, ids=lambda value: str(value)[:20])
def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path, tiny_model, options, error, message) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "config-only").mkdir()
    (tmp_path / "config-only" / "config.json").write_text((tiny_model / "config.json").read_text())
    model = str(tmp_path / options["model"]) if "model" in options else str(tiny_model)
    with pytest.raises(error, match=message) as caught:
        load_backend("transformers", BackendOptions(**{**options, "model": model}))
    assert "\n" not in str(caught.value)


def test_an_unreadable_image_is_named(tiny_model, make_pairs) -> None:
    pair = next(iter_pairs(make_pairs(5)))
    for broken in (b"", b"not an image", pair.images[1].data[:40]):
        images = (pair.images[0], replace(pair.images[1], data=broken))
        backend = load_backend("transformers", BackendOptions(model=str(tiny_model), device="cpu"))
        with pytest.raises(DataError, match=rf"pair {pair.pair_id}, image .*(a file of zero bytes|no readable image)"):
            list(backend.answer([Question(pair.pair_id, prompt_text(pair.problem), images)]))
