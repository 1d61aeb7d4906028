"""What would make a LLaMA-Factory SFT run fail, or train something else than meant, found before it starts.

The facts about LLaMA-Factory 0.9.5 with transformers 5 behind each check are in docs/sft.md. Nothing of it is
imported: names of keys are read from its installed source.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import yaml

from lad_reasoner.pairs.families import find_family
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.findings import Finding, by_severity, error, warning
from lad_reasoner.support.yaml_keys import describe_yaml_error, refuse_repeated_keys
from lad_reasoner.training.preflight.sft_data import check_data

__all__ = ["EFFECTIVE_BATCH", "check_sft", "known_keys"]

#: arXiv 2504.12749, section 4: "batch size 16".
EFFECTIVE_BATCH: Final = 16

#: Keys whose value may be a word that YAML reads as a boolean: no, off.
_WORDS: Final = ("save_strategy", "eval_strategy", "logging_strategy", "report_to", "hub_strategy", "flash_attn")

_FROZEN: Final = ("freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model")

_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")

Config = Mapping[str, Any]


def check_sft(path: Path) -> list[Finding]:
    """Return what is wrong with a LLaMA-Factory YAML, errors first.

    Relative paths in it are meant from the working directory, as LLaMA-Factory has it.

    Raises:
        DataError: The file is no YAML mapping.
    """
    config = _read(path)
    return by_severity(finding for check in _CHECKS for finding in check(config))


def _read(path: Path) -> Config:
    try:
        text = path.read_text(encoding="utf-8")
        refuse_repeated_keys(yaml.compose(text), path)  # LLaMA-Factory refuses them, too
        value = yaml.safe_load(text)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as fault:
        problem = f"it is not readable YAML ({describe_yaml_error(fault)})"
        raise DataError(problem, where=path, remedy="Name a LLaMA-Factory config") from fault
    if not isinstance(value, dict):
        raise DataError(f"it holds a {type(value).__name__}, not keys and values", where=path)
    return value


@cache
def known_keys() -> frozenset[str]:
    """Return every key that the installed LLaMA-Factory accepts; empty if it is not installed."""
    package, transformers = find_spec("llamafactory"), find_spec("transformers")
    if package is None or transformers is None or not (package.origin and transformers.origin):
        return frozenset()
    sources = [
        *Path(package.origin).parent.joinpath("hparams").glob("*_args.py"),
        Path(transformers.origin).with_name("training_args.py"),
        Path(transformers.origin).with_name("training_args_seq2seq.py"),
    ]
    names = set[str]()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = (item.target for item in node.body if isinstance(item, ast.AnnAssign))
                names |= {target.id for target in fields if isinstance(target, ast.Name)}
    return frozenset(names)


def _check_keys(config: Config) -> Iterator[Finding]:
    """LLaMA-Factory has every key: it rejects others only after half a minute of imports."""
    known = known_keys()
    if not known:
        yield warning("llamafactory", "it is not installed here, so the keys were not checked")
        return
    for key in config:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            yield error(str(key), "LLaMA-Factory has no such key", remedy=f"Did you mean {near[0]}?" if near else "")


def _check_words(config: Config) -> Iterator[Finding]:
    """`no` without quotes is a boolean in YAML, not the word."""
    for key in _WORDS:
        if isinstance(config.get(key), bool):
            yield error(key, f"it is the boolean {config[key]}, not a word", remedy='Write it in quotes, as in "no"')


def _check_stage(config: Config) -> Iterator[Finding]:
    """It trains, and only trains."""
    if (stage := config.get("stage")) != "sft":
        yield error("stage", f"it is {stage!r}", remedy="Set it to sft")
    if (train := config.get("do_train")) is not True:
        yield error("do_train", f"it is {train!r}, so nothing would be trained", remedy="Set it to true")
    if config.get("do_predict") or config.get("predict_with_generate"):
        key = "do_predict" if config.get("do_predict") else "predict_with_generate"
        remedy = "Predict with `lad predict`: on transformers 5, LLaMA-Factory generates wrong text for Qwen2.5-VL"
        yield error(key, "it must not be true", remedy=remedy)


def _check_frozen(config: Config) -> Iterator[Finding]:
    """Full-parameter training trains only the parts that are explicitly not frozen."""
    if config.get("finetuning_type", "lora") != "full":
        return
    for key in _FROZEN:
        if key not in config:
            remedy = "Set it to false, as in the paper, or true"
            yield error(key, "it is not set, and the default may freeze this part", remedy=remedy)
        elif config[key]:
            yield warning(key, "it is true, but the paper trains all parameters")


def _check_template(config: Config) -> Iterator[Finding]:
    """The template is the model's."""
    name, template = str(config.get("model_name_or_path", "")), config.get("template")
    if not name:
        yield error("model_name_or_path", "no model is named", remedy="Name a folder or a model on the Hub")
    if template is None:
        yield error("template", "it is not set", remedy="Use qwen2_vl for Qwen2.5-VL")
        return
    family = find_family(name)
    if family is not None and template not in family.templates:
        yield error("template", f"{template!r} does not fit {name}", remedy=f"Use {' or '.join(family.templates)}")


def _check_resume(config: Config) -> Iterator[Finding]:
    """Resuming does not load the language model's weights, so the checkpoint must be the model as well."""
    if config.get("finetuning_type", "lora") != "full":
        return
    if config.get("load_best_model_at_end"):
        remedy = "Choose a checkpoint by hand: loading it into a running Qwen2.5-VL loses the language model's weights"
        yield error("load_best_model_at_end", "it must not be true", remedy=remedy)
    model, checkpoint = config.get("model_name_or_path"), config.get("resume_from_checkpoint")
    if checkpoint and str(model).rstrip("/") != str(checkpoint).rstrip("/"):
        remedy = "Set model_name_or_path to the checkpoint too; resuming alone leaves the language model at its start"
        yield error("resume_from_checkpoint", f"it is {checkpoint}, but model_name_or_path is {model}", remedy=remedy)
    last = _last_checkpoint(config)
    if last is None or checkpoint or config.get("overwrite_output_dir"):
        return
    if str(model).rstrip("/") != str(last).rstrip("/"):
        remedy = f"To go on, set model_name_or_path and resume_from_checkpoint to {last}; "
        remedy += "to start anew, set overwrite_output_dir or another output_dir"
        yield error("output_dir", f"LLaMA-Factory would resume from {last} by itself", remedy=remedy)


def _last_checkpoint(config: Config) -> Path | None:
    folder = Path(str(config.get("output_dir", "")))
    if "output_dir" not in config or not folder.is_dir():
        return None
    steps = [
        (int(m[1]), path) for path in folder.iterdir() if path.is_dir() and (m := _CHECKPOINT.fullmatch(path.name))
    ]
    return max(steps)[1] if steps else None


def _check_output(config: Config) -> Iterator[Finding]:
    """There is a place for the result."""
    if not config.get("output_dir"):
        yield error("output_dir", "it is not set", remedy="Name a folder for the trained model")


def _check_pixels(config: Config) -> Iterator[Finding]:
    """Images are as large as in GRPO and evaluation; the saved processor does not record it."""
    if "image_max_pixels" not in config:
        remedy = "Set it to the max_pixels of GRPO and evaluation"
        yield warning("image_max_pixels", "it is not set, and the default is 589824", remedy=remedy)
    low, high = config.get("image_min_pixels", 32 * 32), config.get("image_max_pixels", 768 * 768)
    if isinstance(low, int) and isinstance(high, int) and low > high:
        yield error("image_min_pixels", f"{low} is above image_max_pixels, {high}")


def _check_batch(config: Config) -> Iterator[Finding]:
    """The batch can be the paper's on some number of GPUs."""
    key = "per_device_train_batch_size"
    each, steps = config.get(key, 8), config.get("gradient_accumulation_steps", 1)
    product = f"{each!r} x gradient_accumulation_steps {steps!r}"
    if not (isinstance(each, int) and isinstance(steps, int) and each > 0 and steps > 0):
        yield error(key, f"{product}: both must be whole numbers from 1")
    elif EFFECTIVE_BATCH % (each * steps):
        yield warning(key, f"{product} makes the paper's batch, {EFFECTIVE_BATCH}, on no number of GPUs")


def _check_deepspeed(config: Config) -> Iterator[Finding]:
    """DeepSpeed's file is JSON and leaves the trainer's settings to the trainer."""
    name = config.get("deepspeed")
    if not name:
        return
    if find_spec("deepspeed") is None:
        yield warning("deepspeed", "the package is not installed here", remedy="Run: pip install deepspeed")
    path = Path(str(name))
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        stage = settings["zero_optimization"]["stage"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
        yield error("deepspeed", f"{path} is not JSON with zero_optimization.stage ({type(fault).__name__}: {fault})")
        return
    for key in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        if settings.get(key, "auto") != "auto":
            remedy = 'Set it to "auto", so that the YAML decides'
            yield error(f"{path}: {key}", f"it is {settings[key]!r}", remedy=remedy)
    gather = "stage3_gather_16bit_weights_on_model_save"
    if stage == 3 and not settings["zero_optimization"].get(gather):
        yield error(f"{path}: {gather}", "it is not true, so no whole model would be saved", remedy="Set it to true")


def _check_environment(_: Config) -> Iterator[Finding]:
    """Ray is not asked to start what torchrun starts better."""
    if os.environ.get("USE_RAY", "0").lower() in {"1", "true"}:
        remedy = "Unset it; on several GPUs FORCE_TORCHRUN=1. Ray asks for 10 CPUs per worker and waits forever"
        yield error("USE_RAY", f"it is {os.environ['USE_RAY']}", remedy=remedy)


_CHECKS: Final[tuple[Callable[[Config], Iterator[Finding]], ...]] = (
    _check_keys,
    _check_words,
    _check_stage,
    _check_frozen,
    _check_template,
    _check_resume,
    _check_output,
    _check_pixels,
    _check_batch,
    _check_deepspeed,
    _check_environment,
    check_data,
)
