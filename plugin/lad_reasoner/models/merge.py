"""Any trainer's checkpoint as one Hugging Face folder: FSDP shards joined, LoRA added, and the result verified.

EasyR1 and verl write the same into ``global_step_<n>/actor``: ``model_world_size_<w>_rank_<r>.pt`` holds each rank's
part of every parameter, ``huggingface`` the config, tokenizer and processor. An adapter's numbers are in
``lora_adapter/adapter_config.json`` (EasyR1) or ``lora_train_meta.json`` (verl).

Shards are mapped, not read: one parameter at a time is joined, cast and written to a scratch file, which is mapped in
turn. So the memory needed is that of the largest parameter, and the disk needs room for the model twice.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from lad_reasoner.models.compatibility import repair_model_folder
from lad_reasoner.models.merge_adapter import fold_adapter
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.files import require_absent

if TYPE_CHECKING:
    import torch

__all__ = ["join_parts", "merge_checkpoint"]

Dtype = Literal["bfloat16", "float16", "float32"]
State = dict[str, "torch.Tensor"]

_SHARD: Final = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
_HEAD: Final = "lm_head.weight"
#: The least size of a file of weights, in bytes: small models stay in one file.
_LEAST_FILE: Final = 64 << 20
#: Where a tensor may start in the scratch file.
_ALIGNMENT: Final = 64
#: Weights that a trainer saved next to its shards, and their index: the merged ones replace them.
_WEIGHTS: Final = re.compile(r".*\.(safetensors|bin|pt|index\.json)")


def merge_checkpoint(checkpoint: Path, out: Path, *, dtype: Dtype = "bfloat16") -> int:
    """Write the model of a checkpoint to ``out`` and return its number of parameters.

    Args:
        checkpoint: A ``global_step_<n>`` folder, or its ``actor`` folder.
        out: A folder that does not exist; it appears only when it is complete and verified.
        dtype: Of the weights. The rollout engines use bfloat16; float32 loses nothing of a full-precision training.

    Raises:
        UsageError: ``out`` exists.
        DataError: The checkpoint is incomplete, or what was written does not load as what was merged.
    """
    import torch

    require_absent(out)
    actor = checkpoint / "actor" if (checkpoint / "actor").is_dir() else checkpoint
    described = actor / "huggingface"
    if not (described / "config.json").is_file():
        raise DataError("no huggingface/config.json, so this is not a checkpoint of EasyR1 or verl", where=actor)
    for file in described.iterdir():
        if file.is_symlink() and not file.resolve().is_relative_to(actor.resolve()):
            problem = "this link leaves the checkpoint, and what it names would be copied into the model"
            raise DataError(problem, where=file, remedy="Replace it by a copy of the file")
    staging = out.with_name(f".{out.name}.part")
    if staging.is_symlink():
        staging.unlink()
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    scratch = staging / ".joined"
    try:
        parts = fold_adapter(_Joined(actor), actor)
        state = _store(parts, scratch, getattr(torch, dtype))
        count = _write(state, described, staging)
        scratch.unlink()  # what is mapped stays readable
        _verify(state, staging, described)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    staging.replace(out)
    return count


class _Joined(Mapping[str, "torch.Tensor"]):
    """The whole parameters of a sharded checkpoint, each joined when it is asked for."""

    def __init__(self, actor: Path) -> None:
        found = [(match, path) for path in actor.iterdir() if (match := _SHARD.fullmatch(path.name))]
        shards = {int(match[2]): path for match, path in found}
        worlds = {int(match[1]) for match, _ in found}
        if worlds != {len(found)} or sorted(shards) != list(range(len(found))):
            problem = f"shards of ranks {sorted(shards)}, not one of every rank of one world size"
            raise DataError(problem, where=actor)
        self._parts = [_read_shard(shards[rank]) for rank in sorted(shards)]
        for rank, part in enumerate(self._parts):
            if odd := sorted(part.keys() ^ self._parts[0].keys()):
                raise DataError(f"{len(odd)} weights at odds with rank 0's ({odd[0]})", where=shards[rank])

    def __getitem__(self, name: str) -> torch.Tensor:
        return join_parts([part[name] for part in self._parts])

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts[0])

    def __len__(self) -> int:
        return len(self._parts[0])


def _store(parts: Iterable[tuple[str, torch.Tensor]], file: Path, dtype: torch.dtype) -> State:
    """Write tensors to a file, one at a time, and return them as mapped from there."""
    import numpy as np
    import torch

    places: dict[str, tuple[int, torch.dtype, torch.Size]] = {}
    with file.open("wb") as out:
        for name, part in parts:
            value = (part.to(dtype) if part.is_floating_point() else part).detach().contiguous()
            out.write(b"\0" * (-out.tell() % _ALIGNMENT))
            places[name] = out.tell(), value.dtype, value.shape
            out.write(memoryview(value.reshape(-1).view(torch.uint8).numpy()))
    if not places:
        raise DataError("an adapter alone, without the weights it adapts", remedy="Train without save_lora_only")

    def mapped(start: int, kind: torch.dtype, shape: torch.Size) -> torch.Tensor:
        if not (size := shape.numel() * kind.itemsize):
            return torch.empty(shape, dtype=kind)
        data = np.memmap(file, dtype=np.uint8, mode="c", offset=start, shape=(size,))
        return torch.from_numpy(data).view(kind).view(shape)

    return {name: mapped(*place) for name, place in places.items()}


def _read_shard(path: Path) -> dict[str, Any]:
    """Return the weights of a shard. Only tensors are read: a pickle that holds anything else is not executed."""
    import torch
    import torch.distributed.tensor  # registers DTensor and its parts as safe
    from torch.distributed.tensor.placement_types import _StridedShard

    if not path.is_file():  # a FIFO would block
        raise DataError("not a regular file", where=path)
    try:
        with torch.serialization.safe_globals([_StridedShard]):
            part = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as fault:  # a pickle that was cut short can fail in any way
        if isinstance(fault, pickle.UnpicklingError) and (refused := re.search(r"GLOBAL (\S+)", str(fault))):
            problem = f"the shard holds {refused[1]}, not only tensors; nothing of it was executed"
            raise DataError(problem, where=path, remedy="Merge a checkpoint of a trainer") from None
        what = f"{type(fault).__name__}: {str(fault).partition(chr(10))[0][:200]}"
        remedy = "Copy it again, or merge another checkpoint"
        raise DataError(f"this is not a whole shard ({what})", where=path, remedy=remedy) from None
    if not isinstance(part, dict):
        raise DataError(f"this holds a {type(part).__name__}, not weights by name", where=path)
    for name, value in part.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise DataError(f"{name!r} is a {type(value).__name__}, not a weight with a name", where=path)
    return part


def join_parts(parts: list[Any]) -> torch.Tensor:
    """Join one parameter; with hybrid sharding the last mesh dimension shards and the others replicate."""
    import torch

    first = parts[0]
    if not hasattr(first, "placements"):
        return first  # every rank has all of it
    ranks = first.device_mesh.mesh.reshape(-1, first.device_mesh.mesh.shape[-1])[0].tolist()
    placement = first.placements[-1]
    local = [parts[rank].to_local() for rank in ranks]
    return torch.cat(local, dim=placement.dim) if placement.is_shard() else local[0]


def _write(state: Mapping[str, torch.Tensor], described: Path, out: Path) -> int:
    """Write weights, config and whatever else describes the model; return its number of parameters."""
    tied = _head_is_embedding(state, described)
    model = _assemble(state, described, tied=tied)
    largest = max(value.numel() * value.element_size() for value in state.values())
    model.save_pretrained(out, max_shard_size=max(largest, _LEAST_FILE))
    for file in described.iterdir():
        # The config is of this save; all else as the trainer left it: a model made of a config forgets, for one, the
        # other tokens that end an answer.
        if file.is_file() and file.name != "config.json" and not _WEIGHTS.fullmatch(file.name):
            shutil.copy2(file, out / file.name)
    # Each version of transformers reads one of the two places, and writes the other or none.
    tree = json.loads((out / "config.json").read_text(encoding="utf-8"))
    for place in (tree, tree.get("text_config")):
        if isinstance(place, dict):
            place["tie_word_embeddings"] = tied
    (out / "config.json").write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    for copy in repair_model_folder(out)[1]:  # for transformers 4 and 5 alike; verified as it is then
        copy.unlink()
    return int(model.num_parameters())


def _assemble(state: Mapping[str, torch.Tensor], described: Path, *, tied: bool) -> Any:
    """Return the model of these weights, which are all its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(described, trust_remote_code=False)
        for part in (config, config.get_text_config()):
            part.tie_word_embeddings = tied
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(
                config, dtype=next(iter(state.values())).dtype, trust_remote_code=False
            )
        missing, strange = model.load_state_dict(dict(state), strict=False, assign=True)
    except (OSError, ValueError, KeyError, RuntimeError) as fault:  # no such model, or weights of other shapes
        reason = " ".join(str(fault).split())[:300]
        raise DataError(f"this is not the model's config: {reason}", where=described) from None
    absent = sorted(set(missing) - ({_HEAD} if tied else set()))
    if absent or strange:
        names = ", ".join([*absent, *strange][:3])
        raise DataError(f"{len(absent)} missing and {len(strange)} unknown weights ({names})", where=described)
    model.tie_weights()
    return model


def _head_is_embedding(state: Mapping[str, torch.Tensor], described: Path) -> bool:
    """Tell whether the head is tied; the weights say it where they can, for the versions' defaults differ."""
    import torch

    try:
        tree = json.loads((described / "config.json").read_text(encoding="utf-8"))
        says = {place.get("tie_word_embeddings") for place in (tree, tree.get("text_config") or {})}
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise DataError("this is not a JSON object", where=described / "config.json") from None
    if (head := state.get(_HEAD)) is None:
        return True in says or False not in says
    embedding = next((value for name, value in state.items() if name.endswith("embed_tokens.weight")), None)
    return True in says and embedding is not None and torch.equal(head, embedding)


def _verify(state: Mapping[str, torch.Tensor], out: Path, described: Path) -> None:
    """Check that the model loads with all its weights, and that their values are those that were merged."""
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        AutoProcessor.from_pretrained(out)
    except (OSError, ValueError, KeyError) as fault:
        problem = f"the processor does not load: {' '.join(str(fault).split())[:300]}"
        raise DataError(problem, where=described, remedy="Copy its files from the model that was trained") from None
    # Names and shapes, without the memory of the values.
    loading = {"dtype": "auto", "output_loading_info": True, "device_map": "meta"}
    _model, info = AutoModelForImageTextToText.from_pretrained(out, **loading)
    if odd := sorted(map(str, [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]])):
        raise DataError(f"{len(odd)} weights do not load again ({odd[0]})", where=described)
    # transformers stores weights under other names than the model's, so values are compared by their digests.
    written: Counter[str] = Counter()
    for file in out.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            written.update(_digest(weights.get_tensor(name)) for name in weights.keys())  # noqa: SIM118 - no mapping
    wanted = Counter(_digest(value) for value in state.values())
    if lost := wanted - written:
        # A tied head is stored once.
        tied = Counter([_digest(state[_HEAD])]) if _HEAD in state else Counter()
        if lost - tied:
            raise DataError(f"{(lost - tied).total()} weights differ after writing", where=described)


def _digest(value: torch.Tensor) -> str:
    import torch

    raw = memoryview(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw).hexdigest()}"
