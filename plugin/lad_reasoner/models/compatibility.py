"""`lad check MODEL_DIR [--fix]`: do transformers 4 and 5 both load a folder as the model that was trained?

SFT writes with transformers 5, EasyR1 reads with 4, verl reads with 5 again. Each of the faults below loads without an
error in one of them and gives another model, or does not load at all. Repairs change JSON files, never weights. Each
keeps what the writing version reads, and adds or moves what the other version reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lad_reasoner.models.folder import ABSENT, INDEX, Edit, ModelFolder, apply_edits
from lad_reasoner.pairs.families import FAMILIES
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.findings import Finding, error, warning

__all__ = ["MODEL_CHECKS", "Fault", "check_model_folder", "is_model_folder", "repair_model_folder", "require_loadable"]

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer_config.json"
PROCESSOR: Final = "processor_config.json"
IMAGES: Final = "preprocessor_config.json"
#: Part of the processor in transformers 5's one file, and its file in transformers 4.
PARTS: Final = {"image_processor": IMAGES, "video_processor": "video_preprocessor_config.json"}
#: Class of the tokenizer in both versions, by model type.
TOKENIZERS: Final = {family.model_type: family.tokenizer for family in FAMILIES}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, as users see it, and the changes that are known to be safe."""

    finding: Finding
    edits: tuple[Edit, ...] = ()


def is_model_folder(path: Path) -> bool:
    """Return whether a folder is a model, an adapter or a checkpoint."""
    names = (CONFIG, TOKENIZER, "adapter_config.json", "actor/huggingface")
    return path.is_dir() and (any((path / name).exists() for name in names) or any(path.glob("*.safetensors")))


def check_model_folder(path: Path, *, max_pixels: int | None = None) -> list[Fault]:
    """Return the faults of a model folder.

    ``max_pixels`` is the largest image area in training, in pixels: the processor should have it.
    """
    folder = ModelFolder(path)
    if (unmerged := _unmerged(path)) is not None:
        return [Fault(unmerged)]
    faults = [fault for check in MODEL_CHECKS for fault in check(folder)]
    faults += _check_pixels(folder, max_pixels)
    broken = [_error(name, reason, remedy="Copy it again") for name, reason in sorted(folder.broken.items())]
    return broken + faults


def require_loadable(model: str, *, types: Collection[str] = ()) -> None:
    """Raise unless a local model can be loaded, before any framework opens it; a hub name passes.

    Args:
        model: Folder or hub name.
        types: The model types that can be loaded; with none given, any type passes and only the files are checked.

    Raises:
        UsageError: The model is of another type. Code that a folder carries (``auto_map``) is never run.
        DataError: There is no model, or some of its files are missing or broken.
    """
    path = Path(model)
    if not path.is_dir():
        if path.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
            problem = "not a folder" if path.exists() else "no such folder"
            raise DataError(problem, where=model, remedy="Give a Hugging Face model folder or a hub name")
        return
    folder = ModelFolder(path)
    kind = folder.get(CONFIG, "model_type")
    if types and kind is not ABSENT and kind not in types:
        raise unsupported_type(model, kind, types)
    findings = [unmerged] if (unmerged := _unmerged(path)) else []
    own = (_check_weights, _check_layers, _check_tokenizer, _check_processor) if types else ()
    faults = [fault for check in (_check_config, *own) for fault in check(folder)]
    findings += [fault.finding for fault in faults if not fault.edits and fault.finding.is_error]
    broken = [f"{name}: {reason}" for name, reason in sorted(folder.unreadable().items())]
    said = [*broken, *(str(finding).removeprefix("error: ") for finding in findings)]
    if said:
        more = f" (and {len(said) - 1} more: `lad check` lists them)" if said[1:] else ""
        raise DataError(f"the model cannot be loaded: {said[0]}{more}", where=model, remedy="Copy the folder again")


def unsupported_type(model: str, kind: object, types: Collection[str]) -> UsageError:
    """Return the error for a model of another type."""
    problem = f"the model's type is {str(kind)[:60]!r}; this backend supports only {', '.join(types)}"
    return UsageError(problem, where=model, remedy="Use --backend vllm, or --backend openai with a server")


def repair_model_folder(path: Path, *, max_pixels: int | None = None) -> tuple[list[Edit], list[Path], list[Fault]]:
    """Make every change that is known to be safe; return the changes, the copies made before, and what is left."""
    done: list[Edit] = []
    copies: list[Path] = []
    left = check_model_folder(path, max_pixels=max_pixels)
    # A repair can uncover another fault (a new file is checked too), so check again until nothing new is found.
    while edits := [edit for fault in left for edit in fault.edits if edit not in done]:
        copies += apply_edits(path, edits)
        done += edits
        left = check_model_folder(path, max_pixels=max_pixels)
    return done, copies, left


def _unmerged(path: Path) -> Finding | None:
    if (path / "adapter_config.json").is_file() and not (path / CONFIG).is_file():
        return error("adapter_config.json", "this is a LoRA adapter, not a whole model", remedy="Run `easyr1 merge`")
    if not (path / CONFIG).is_file() and ((path / "actor").is_dir() or any(path.glob("model_world_size_*"))):
        return error(str(path), "this is a trainer's checkpoint, not a model folder", remedy="Run `easyr1 merge`")
    return None


def _error(where: str, problem: str, *, remedy: str = "", edits: tuple[Edit, ...] = ()) -> Fault:
    return Fault(error(where, problem, remedy=remedy), edits)


def _text_path(folder: ModelFolder) -> tuple[str, ...]:
    """Return the path of the language model's description; multimodal models have it in a section."""
    return ("text_config",) if isinstance(folder.get(CONFIG, "text_config"), dict) else ()


def _check_config(folder: ModelFolder) -> Iterator[Fault]:
    """The config exists and names the model."""
    if not folder.has(CONFIG):
        yield _error(CONFIG, "the file is missing: this is not a Hugging Face model folder")
    elif CONFIG not in folder.broken and folder.document(CONFIG):
        for key in ("model_type", "architectures"):
            if folder.get(CONFIG, key) is ABSENT:
                remedy = "Copy it from the model that was trained"
                yield _error(f"{CONFIG}: {key}", "the key is missing", remedy=remedy)


def _check_weights(folder: ModelFolder) -> Iterator[Fault]:
    """Every weight file is whole, and the index and the files name the same weights."""
    if not folder.weight_files:
        other = [file.name for file in folder.path.glob("pytorch_model*.bin")]
        found = f"only {other[0]}" if other else "no weights"
        yield _error("*.safetensors", f"the folder has {found}", remedy="Run `easyr1 merge`, or save it again")
        return
    placed = folder.get(INDEX, "weight_map")
    if placed is ABSENT:
        if len(folder.weight_files) > 1:
            yield _error(INDEX, f"the index of the {len(folder.weight_files)} weight files is missing")
        return
    if not isinstance(placed, dict):
        yield _error(f"{INDEX}: weight_map", f"is a {type(placed).__name__}, not an object")
        return
    for shard in sorted(set(map(str, placed.values())) - set(folder.weight_files)):
        yield _error(shard, f"the file is missing, but {INDEX} names it", remedy="Copy it again")
    for shard, tensors in folder.shards.items():
        wanted = {name for name, file in placed.items() if file == shard}
        if lost := sorted(wanted - set(tensors)):
            yield _error(shard, f"{len(lost)} weights that {INDEX} names are missing ({lost[0]})")
        if strange := sorted(set(tensors) - wanted):
            found = f"has {len(strange)} weights that the index does not name ({strange[0]})"
            yield _error(shard, found, remedy="Remove the files of another save")


def _check_layers(folder: ModelFolder) -> Iterator[Fault]:
    """Every layer that the config counts has weights, and the embedding has the config's size."""
    if not folder.tensors or folder.broken:
        return
    text = _text_path(folder)
    for pattern, where in (
        (r"^(?!.*visual\.).*\blayers\.(\d+)\.", (*text, "num_hidden_layers")),
        (r"\bvisual\.blocks\.(\d+)\.", ("vision_config", "depth")),
    ):
        there = {int(found[1]) for name in folder.tensors if (found := re.search(pattern, name))}
        count = folder.get(CONFIG, *where)
        if isinstance(count, int) and there and (len(there), max(there)) != (count, count - 1):
            odd = next((layer for layer in range(len(there)) if layer not in there), len(there))
            says = (
                f"is {count}, but there are weights of {len(there)} layers (first difference: layer {min(odd, count)})"
            )
            yield _error(f"{CONFIG}: {'.'.join(where)}", says)
    size = tuple(folder.get(CONFIG, *text, key) for key in ("vocab_size", "hidden_size"))
    for name, tensor in folder.tensors.items():
        if name.endswith("embed_tokens.weight") and ABSENT not in size and tensor.shape != size:
            yield _error(f"{CONFIG}: vocab_size, hidden_size", f"is {size}, but {name} is {tensor.shape}")


def _check_head(folder: ModelFolder) -> Iterator[Fault]:
    """A model without a head of its own says so where each version reads it: else the head is random numbers."""
    if not any(name.endswith("embed_tokens.weight") for name in folder.tensors):
        return
    if folder.broken or not folder.document(CONFIG):
        return
    places = {(*path, "tie_word_embeddings") for path in ((), _text_path(folder))}
    says = {path: folder.get(CONFIG, *path) for path in sorted(places)}
    where = f"{CONFIG}: tie_word_embeddings"
    if any(name.endswith("lm_head.weight") for name in folder.tensors):
        if True in says.values():
            remedy = "Transformers reads the embedding in its place: are they the same?"
            yield Fault(warning(where, "it is true, but the weights include a separate head", remedy=remedy))
    elif False in says.values() and True not in says.values():
        remedy = "The head was lost: save or merge the model again"
        yield _error(where, "it is false, but there is no lm_head.weight", remedy=remedy)
    elif edits := tuple(Edit(CONFIG, path, value=True) for path, value in says.items() if value is not True):
        found = ", ".join(f"{edit.path[0] if edit.path[1:] else 'top level'} {says[edit.path]}" for edit in edits)
        reader = "5" if says["tie_word_embeddings",] is not True else "4"
        problem = (
            f"{found}, and there is no lm_head.weight: transformers {reader} makes a random head unless it is true"
        )
        yield _error(where, problem, edits=edits)


def _check_rope(folder: ModelFolder) -> Iterator[Fault]:
    """The rotary embedding is also where transformers 4 looks: it takes 1,000,000 and no sections otherwise."""
    text = _text_path(folder)
    new = folder.get(CONFIG, *text, "rope_parameters")
    if not isinstance(new, dict) or any(isinstance(value, dict) for value in new.values()):
        return  # none, or one of each kind of layer, which transformers 4 has no form for
    old, scaling = (folder.get(CONFIG, *text, name) for name in ("rope_theta", "rope_scaling"))
    base = new.get("rope_theta", ABSENT)
    where = f"{CONFIG}: {'.'.join((*text, 'rope_theta'))}"
    if old is not ABSENT and base is not ABSENT and old != base:
        yield _error(where, f"it is {old}, but {base} in rope_parameters", remedy="Correct the one that is wrong")
    elif old is ABSENT and base is not ABSENT:
        edit = Edit(CONFIG, (*text, "rope_theta"), base)
        yield _error(where, f"{base} is only in rope_parameters, where transformers 4 does not read it", edits=(edit,))
    rest = {key: value for key, value in new.items() if key != "rope_theta"}
    if scaling in (ABSENT, None) and rest.keys() - {"rope_type", "type"}:
        edit = Edit(CONFIG, (*text, "rope_scaling"), rest)
        where = f"{CONFIG}: {'.'.join(edit.path)}"
        yield _error(where, "is only in rope_parameters, where transformers 4 does not read it", edits=(edit,))


def _check_tokenizer(folder: ModelFolder) -> Iterator[Fault]:
    """There is a tokenizer, with special tokens and a class that both versions know."""
    remedy = "Copy the tokenizer of the model that was trained"
    if not folder.has("tokenizer.json") and not (folder.has("vocab.json") and folder.has("merges.txt")):
        yield _error("tokenizer.json", "the file is missing", remedy=remedy)
    if not folder.has(TOKENIZER):
        yield _error(TOKENIZER, "the file is missing", remedy=remedy)
        return
    extra = folder.get(TOKENIZER, "extra_special_tokens")
    if isinstance(extra, list):
        known = folder.get(TOKENIZER, "additional_special_tokens")
        kept = [*known, *[token for token in extra if token not in known]] if isinstance(known, list) else extra
        edits = (
            Edit(TOKENIZER, ("additional_special_tokens",), kept),
            Edit(TOKENIZER, ("extra_special_tokens",), ABSENT),
        )
        problem = "a list does not load in transformers 4; both versions read additional_special_tokens"
        yield _error(f"{TOKENIZER}: extra_special_tokens", problem, edits=edits)
    kind = folder.get(TOKENIZER, "tokenizer_class")
    if kind == "TokenizersBackend":
        better = TOKENIZERS.get(str(folder.get(CONFIG, "model_type")))
        named = (Edit(TOKENIZER, ("tokenizer_class",), better),) if better and folder.has("tokenizer.json") else ()
        problem = f"transformers 4 has no class {kind}; it needs {better or 'the class of the model'}"
        yield _error(f"{TOKENIZER}: tokenizer_class", problem, edits=named)


def _check_template(folder: ModelFolder) -> Iterator[Fault]:
    """There is a chat template: without one, prompts cannot be built."""
    held = (folder.get(name, "chat_template") for name in (TOKENIZER, PROCESSOR, "chat_template.json"))
    if not folder.has("chat_template.jinja") and all(value in (ABSENT, None, "") for value in held):
        remedy = "Copy chat_template.jinja of the model that was trained"
        yield _error("chat_template.jinja", "there is no chat template", remedy=remedy)


def _check_generation(folder: ModelFolder) -> Iterator[Fault]:
    """It is known where an answer ends."""
    inside = (folder.get(CONFIG, *path, "eos_token_id") for path in ((), _text_path(folder)))
    if folder.get("generation_config.json", "eos_token_id") is ABSENT and all(v in (ABSENT, None) for v in inside):
        problem = "there is no eos_token_id, so answers may run to the length limit"
        yield Fault(warning("generation_config.json", problem))


def _check_processor(folder: ModelFolder) -> Iterator[Fault]:
    """A model that sees has its image processor in the form of both versions."""
    if folder.get(CONFIG, "vision_config") is ABSENT:
        return
    if not folder.has(IMAGES) and folder.get(PROCESSOR, "image_processor") is ABSENT:
        remedy = "Copy preprocessor_config.json of the model that was trained"
        yield _error(IMAGES, "the file is missing, and processor_config.json has no image_processor", remedy=remedy)
    for part, file in PARTS.items():
        nested = folder.get(PROCESSOR, part)
        if not isinstance(nested, dict):
            continue
        if folder.has(file) and (bound := _bound(nested)) != (other := _bound(folder.document(file))):
            found = f"allows {other} pixels, but {PROCESSOR} allows {bound}"
            yield _error(file, found, remedy="`--max-pixels N --fix` sets both")
            continue
        own = {**nested, "processor_class": folder.get(PROCESSOR, "processor_class")}
        made = Edit(file, (), {key: value for key, value in own.items() if value is not ABSENT})
        edits = (*(() if folder.has(file) else (made,)), Edit(PROCESSOR, (part,), ABSENT))
        problem = f"transformers below 4.57 does not load it from here; both versions read {file}"
        yield Fault(warning(f"{PROCESSOR}: {part}", problem), edits)


def _check_vllm(folder: ModelFolder) -> Iterator[Fault]:
    """EasyR1's vLLM (0.11) starts: it reads two keys through transformers 4 that transformers 5 does not write."""
    named, text = folder.get(CONFIG, "architectures"), _text_path(folder)
    nested = folder.get(CONFIG, *text, "architectures")
    if text and nested in (ABSENT, None) and str(folder.get(CONFIG, "model_type")).startswith("qwen2"):
        problem = "the key is missing: with transformers 4, vLLM reads the model's class here"
        edit = Edit(CONFIG, (*text, "architectures"), named)
        yield _error(f"{CONFIG}: text_config.architectures", problem, edits=() if named is ABSENT else (edit,))
    size = folder.get(IMAGES, "size")
    if isinstance(size, dict) and size.keys() >= {"shortest_edge", "longest_edge"}:
        limits = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        edits = tuple(
            Edit(IMAGES, (key,), to) for key, to in limits.items() if folder.get(IMAGES, key) in (ABSENT, None)
        )
        if edits:
            problem = "the limits are only in size: with transformers 4, vLLM reads min_pixels and max_pixels"
            yield _error(f"{IMAGES}: size", problem, edits=edits)


def _bound(processor: dict[str, Any]) -> int | None:
    """Return the largest area in pixels: max_pixels wins over size, as in both versions."""
    size = processor.get("size")
    return processor.get("max_pixels") or (size.get("longest_edge") if isinstance(size, dict) else None)


def _check_pixels(folder: ModelFolder, wanted: int | None) -> Iterator[Fault]:
    """The processor bounds images as training did: LLaMA-Factory does not write its image_max_pixels into it."""
    bounds: dict[str, int] = {}
    for file, path in ((IMAGES, ()), (PROCESSOR, ("image_processor",))):
        described = folder.get(file, *path)
        if not isinstance(described, dict) or (bound := _bound(described)) is None:
            continue
        bounds[file] = bound
        if wanted is not None and bound != wanted:
            keys: list[tuple[str, ...]] = [("max_pixels",)] if described.get("max_pixels") else []
            keys += [("size", "longest_edge")] if isinstance(described.get("size"), dict) else []
            edits = tuple(Edit(file, (*path, *key), wanted) for key in keys)
            yield _error(f"{file}: max_pixels", f"is {bound:,}, but training used {wanted:,}", edits=edits)
    if wanted is None and bounds and folder.has("training_args.bin"):
        bound = max(bounds.values())
        problem = f"is {bound:,} in a folder that a trainer wrote, which does not keep image_max_pixels"
        remedy = "Run `lad check DIR --max-pixels N --fix`"
        yield Fault(warning(f"{next(iter(bounds))}: max_pixels", problem, remedy=remedy))


MODEL_CHECKS: Final[tuple[Callable[[ModelFolder], Iterator[Fault]], ...]] = (
    _check_config,
    _check_weights,
    _check_layers,
    _check_head,
    _check_rope,
    _check_tokenizer,
    _check_template,
    _check_generation,
    _check_processor,
    _check_vllm,
)
