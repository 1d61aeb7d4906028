"""The tiny model for a config's model: made from its folder, of its family, or a replacement."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.installed import TrainerName

__all__ = ["FAMILIES", "ModelSource", "find_source"]

#: Architectures that each trainer can rehearse: model types of transformers.
FAMILIES: Final[dict[TrainerName, tuple[str, ...]]] = {
    "verl": ("qwen2_5_vl", "qwen3_vl"),
    "easyr1": ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
}

#: Families whose tokenizer and processor this package contains, by the names of their models.
_NAMES: Final = (("qwen3_vl", r"qwen3[-_.]?vl"), ("qwen2_5_vl", r"qwen2[-_.]5[-_.]?vl"))

_REPLACEMENT: Final = "qwen2_5_vl"

_TOKENIZERS: Final = ("tokenizer.json", "vocab.json", "tokenizer.model")
_PROCESSORS: Final = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Source of the tiny model.

    Attributes:
        family: Its architecture, a model type of transformers.
        folder: The real model's folder on this machine, whose tokenizer and processor are copied and whose config is
            scaled down. None: the package's own tokenizer and processor.
        replaces: If the architecture differs from the config's: the config's model, and the reason.
    """

    family: str
    folder: Path | None
    replaces: str = ""


def find_source(config: EasyR1Config, trainer: TrainerName) -> ModelSource:
    """Return the source of the tiny model: the config's model if it is on this machine, else the family of its name.

    Raises:
        UsageError: The config has no model.
        DataError: The folder has no valid ``config.json``.
    """
    key = "worker.actor.model.model_path"
    if not (name := str(config[key] or "")):
        raise UsageError("no model is set", where=key, remedy="Set a model folder or hub name")
    folder = Path(name) if Path(name).is_dir() else _cached(name)
    if folder is not None:
        family = _read_type(folder)
    else:
        family = next((family for family, pattern in _NAMES if re.search(pattern, name.lower())), "unknown")
    if family in FAMILIES[trainer]:
        return ModelSource(family, folder)
    reason = f"{name} is of type {family}; {trainer} can rehearse {', '.join(FAMILIES[trainer])}"
    return ModelSource(_REPLACEMENT, None, reason)


def _read_type(folder: Path) -> str:
    path = folder / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["model_type"])
    except FileNotFoundError as error:
        raise DataError("the model folder has no config.json", where=folder) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("not a model config: it has no model_type", where=path) from error


def _cached(name: str) -> Path | None:
    """Return the folder of a cached hub model, if it contains config, tokenizer and processor."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a path that does not exist
        return None
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    complete = all(any((folder / file).is_file() for file in files) for files in (_TOKENIZERS, _PROCESSORS))
    return folder if complete else None
