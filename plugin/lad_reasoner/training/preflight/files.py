"""Files that a run reads: EasyR1 trains without some of them, printing only that they are missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lad_reasoner.models.weights import parameter_count
from lad_reasoner.pairs.families import model_types
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.findings import Finding, error, note, warning
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.task import IMAGE_MARKER, name_prompt, prompt_text
from lad_reasoner.training.preflight.context import Check, Known

__all__ = ["FILE_CHECKS", "check_model_is_there"]

#: Architectures with images that EasyR1 at REQUIRED_EASYR1 patches; it stops at any other.
EASYR1_MODELS: Final = model_types()

_PROMPT: Final = "data.format_prompt"
_MODEL: Final = "worker.actor.model.model_path"
_TOKENIZER: Final = "worker.actor.model.tokenizer_path"


def check_data_files(known: Known) -> Iterator[Finding]:
    """Training and validation files exist and are readable; validation is not optional."""
    for key, file in (("data.train_files", known.train), ("data.val_files", known.val)):
        value = known[key]
        name, _, split = value.partition("@")
        path = Path(name)
        if not value:
            yield error(key, "no file is named", remedy="Build one with `lad build`")
        elif file is not None and file.problem:
            yield error(path, file.problem, remedy="Build it again with `lad build`")
        elif path.is_dir():
            yield from _check_folder(key, path)
        elif not path.exists() and _looks_local(value):
            yield error(key, f"there is no such file: {path}", remedy="Build it with `lad build`, or correct the path")
        elif file is None:
            yield note(key, f"{value} was not checked: only parquet files on this machine are")
        if path.exists() and split not in {"", "train"}:
            remedy = "A file has only the split train: leave out the @"
            yield error(key, f"{path} has no split {split!r}", remedy=remedy)


def _check_folder(key: str, folder: Path) -> Iterator[Finding]:
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        yield error(key, f"{folder} is empty", remedy="Put parquet files there")
    endings = {Path(name).suffix for name in names}
    if len(endings) > 1:
        remedy = "EasyR1 uses the type of the first file it lists; name the parquet file itself"
        yield error(key, f"{folder} has files of several kinds: {', '.join(names[:4])}", remedy=remedy)


def _looks_local(value: str) -> bool:
    """Whether a value must be a path: a name on the hub has one slash and no extension of a data file."""
    return _is_path(value) or Path(value.partition("@")[0]).suffix in {".parquet", ".json", ".jsonl", ".csv", ".arrow"}


def check_format_prompt(known: Known) -> Iterator[Finding]:
    """The format prompt exists, renders, and keeps the problem's images."""
    if known[_PROMPT] is None:
        problem = "it is not set, so the prompt never asks for the template that is rewarded"
        yield warning(_PROMPT, problem, remedy="Set it to plugin/lad_reasoner/task/prompts/rlad.jinja")
    elif not (path := Path(known[_PROMPT])).is_file():
        remedy = "Correct the path: EasyR1 would only print this and train without the template"
        yield error(_PROMPT, f"{path} does not exist", remedy=remedy)
    else:
        yield from _check_template(path)
        yield from _check_form(path, known)


def _check_template(path: Path) -> Iterator[Finding]:
    probe = f"{IMAGE_MARKER} probe"
    try:
        text = prompt_text(probe, path.read_text(encoding="utf-8"))
    except Exception as fault:  # a template is code: its expressions can fail in any way
        what = " ".join(f"{type(fault).__name__}: {fault}".split())[:200]
        yield error(_PROMPT, f"this jinja template cannot be rendered ({what})")
        return
    if probe not in text:
        remedy = "Put {{ content }} where the problem goes"
        yield error(_PROMPT, "the template has no {{ content }}", remedy=remedy)
    elif text.count(IMAGE_MARKER) != 1:
        yield error(_PROMPT, f"the template has {IMAGE_MARKER}", remedy="Remove it: images belong to the problem")


def _check_form(path: Path, known: Known) -> Iterator[Finding]:
    """A shipped format prompt asks for the answers that the training file holds."""
    try:
        gold = read_gold(known.train.first_gold) if known.train else None
        text = path.read_text(encoding="utf-8")
    except (ValueError, OSError):
        return  # reported elsewhere
    if gold is None or (asked := name_prompt(text)) is None:
        return
    wanted = "letters" if gold.prompt == "choice" else gold.prompt
    if asked != wanted:
        problem = f"it is {asked}.jinja, but the gold answers of data.train_files need {wanted}.jinja"
        yield error(_PROMPT, problem, remedy=f"Set it to plugin/lad_reasoner/task/prompts/{wanted}.jinja")


def check_other_files(known: Known) -> Iterator[Finding]:
    """The chat template and the image folder exist where they are given."""
    for key, what in (("data.override_chat_template", "file"), ("data.image_dir", "folder")):
        if (value := known[key]) is not None and not Path(value).exists():
            remedy = "Correct the path: EasyR1 would only print this"
            yield error(key, f"the {what} {value} does not exist", remedy=remedy)


def check_model_is_there(known: Known) -> Iterator[Finding]:
    """A model is named, and a path to it exists."""
    make = "Train, export or merge it first, or correct the path"
    if not (value := known[_MODEL]):
        yield error(_MODEL, "no model is named", remedy="Name a model folder or a model on the Hub")
    elif not Path(value).exists() and _is_path(value):
        yield error(_MODEL, f"{value} does not exist", remedy=f"{make}; a model on the Hub is owner/model")
    elif not Path(value).exists() and Path(value).parent.is_dir():
        yield warning(_MODEL, f"the folder {value} does not exist, so it is read as a name on the Hub", remedy=make)


def check_model(known: Known) -> Iterator[Finding]:
    """A model folder holds a whole model, with its processor."""
    path = Path(known[_MODEL] or "")
    if not known[_MODEL] or not path.exists():
        return  # reported by check_model_is_there, or a name on the hub
    if not (path / "config.json").is_file():
        remedy = "Merge the checkpoint first: `easyr1 merge`" if path.name in {"actor", "huggingface"} else ""
        yield error(_MODEL, f"{path} has no config.json, so it is not a Hugging Face model folder", remedy=remedy)
        return
    if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
        yield error(_MODEL, f"{path} has no weights (*.safetensors)", remedy="Merge the checkpoint first")
    try:
        parameter_count(str(path))
    except (DataError, OSError) as fault:
        yield error(_MODEL, str(fault))
    processors = ("preprocessor_config.json", "processor_config.json")
    if known.has_images and not any((path / name).is_file() for name in processors):
        yield error(_MODEL, f"{path} has no image processor (preprocessor_config.json or processor_config.json)")


def check_model_type(known: Known) -> Iterator[Finding]:
    """The model reads images, and EasyR1 supports its architecture."""
    kind = known.model_config.get("model_type")
    if not kind or not known.has_images:
        return  # EasyR1 trains text-only models on text-only data
    if "vision_config" not in known.model_config and "vl" not in str(kind):
        yield error(_MODEL, f"a {kind} model reads no images", remedy="Use a vision-language model")
    elif known.trains_with("easyr1") and kind not in EASYR1_MODELS:
        yield error(_MODEL, f"EasyR1 does not support {kind} models", remedy=f"Use one of: {', '.join(EASYR1_MODELS)}")


def check_handover(known: Known) -> Iterator[Finding]:
    """EasyR1's transformers 4 reads a model folder that transformers 5 wrote correctly."""
    from lad_reasoner.models.compatibility import check_model_folder

    path = Path(known[_MODEL] or "")
    if not known.trains_with("easyr1") or not (path / "config.json").is_file():
        return
    if faults := [fault.finding for fault in check_model_folder(path) if fault.edits]:
        problem = f"transformers 4 misreads {len(faults)} things in {path}, {faults[0].where} first"
        yield warning(_MODEL, problem, remedy=f"Run `lad check {path} --fix`")


def check_offline(known: Known) -> Iterator[Finding]:
    """A model on the hub is cached or can be downloaded."""
    name = str(known[_MODEL] or "")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() not in {"1", "on", "true", "yes"} or not name or _is_path(name):
        return
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    if not Path(name).exists() and not (cache / f"models--{name.replace('/', '--')}").is_dir():
        problem = f"{cache} has no {name}, and HF_HUB_OFFLINE forbids the download"
        yield error(_MODEL, problem, remedy="Unset HF_HUB_OFFLINE, or download the model first")


def check_tokenizer(known: Known) -> Iterator[Finding]:
    """A separate tokenizer exists."""
    value = str(known[_TOKENIZER] or "")
    if value != known[_MODEL] and not Path(value).exists() and _is_path(value):
        yield error(_TOKENIZER, f"{value} does not exist", remedy="Name a folder or a model on the Hub")


def _is_path(value: str) -> bool:
    """Whether a model's name must be a path: a name on the hub is owner/model."""
    return value.startswith(("/", "./", "../", "~")) or value.count("/") != 1


FILE_CHECKS: Final[tuple[Check, ...]] = (
    check_data_files,
    check_format_prompt,
    check_other_files,
    check_model_is_there,
    check_model,
    check_model_type,
    check_handover,
    check_offline,
    check_tokenizer,
)
