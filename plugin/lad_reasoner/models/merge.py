"""Any trainer's checkpoint as one Hugging Face folder: FSDP shards joined, LoRA folded in, and the result verified.

EasyR1 and verl write the same into ``global_step_<n>/actor``: ``model_world_size_<w>_rank_<r>.pt`` holds each rank's
part of every parameter, ``huggingface`` the config, tokenizer and processor. An adapter's numbers are in
``lora_adapter/adapter_config.json`` (EasyR1) or ``lora_train_meta.json`` (verl).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from lad_reasoner.models.compatibility import mend
from lad_reasoner.models.merge_adapter import fold_adapter
from lad_reasoner.support.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["merge_checkpoint"]

Dtype = Literal["bfloat16", "float16", "float32"]
State = dict[str, "torch.Tensor"]

_SHARD: Final = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
_HEAD: Final = "lm_head.weight"
#: Weights that a trainer saved beside its shards, and their index: the merged ones take their place.
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

    if out.exists():
        raise UsageError("--out", found=f"{out}, which exists", remedy="name another folder, or remove it")
    actor = checkpoint / "actor" if (checkpoint / "actor").is_dir() else checkpoint
    described = actor / "huggingface"
    if not (described / "config.json").is_file():
        raise DataError(actor, found="no huggingface/config.json", expected="a checkpoint of EasyR1 or verl")
    state = fold_adapter(_join(actor), actor)
    if not state:
        raise DataError(actor, found="an adapter alone", expected="all weights", remedy="train without save_lora_only")
    wanted = getattr(torch, dtype)
    state = {name: value.to(wanted) if value.is_floating_point() else value for name, value in state.items()}
    staging = out.with_name(f".{out.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        count = _write(state, described, staging)
        _verify(state, staging, described)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    staging.replace(out)
    return count


def _join(actor: Path) -> State:
    """Return the whole parameters of a sharded checkpoint."""
    shards = {int(found[2]): path for path in actor.iterdir() if (found := _SHARD.fullmatch(path.name))}
    worlds = {int(found[1]) for path in shards.values() if (found := _SHARD.fullmatch(path.name))}
    if len(worlds) != 1 or set(shards) != set(range(max(worlds))):
        raise DataError(
            actor, found=f"shards of ranks {sorted(shards)}", expected="one of every rank of one world size"
        )
    parts = [_read_shard(shards[rank]) for rank in sorted(shards)]
    for rank, part in enumerate(parts):
        if odd := sorted(part.keys() ^ parts[0].keys()):
            raise DataError(shards[rank], found=f"{len(odd)} weights at odds with rank 0's ({odd[0]})")
    return {name: _join_one([part[name] for part in parts]) for name in parts[0]}


def _read_shard(path: Path) -> dict[str, Any]:
    import torch

    try:
        # weights_only would refuse DTensor; a checkpoint of one's own training is trusted.
        part = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as fault:  # a pickle that was cut short can fail in any way
        what = f"{type(fault).__name__}: {str(fault).partition(chr(10))[0][:200]}"
        raise DataError(path, found=what, expected="a whole shard", remedy="copy it again, or merge another") from None
    if not isinstance(part, dict):
        raise DataError(path, found=type(part).__name__, expected="a shard: weights by name")
    return part


def _join_one(parts: list[Any]) -> torch.Tensor:
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
    model.save_pretrained(out)
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
    for copy in mend(out)[1]:  # for transformers 4 and 5 alike; verified as it is then
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
        raise DataError(described, found=" ".join(str(fault).split())[:300], expected="the model's config") from None
    absent = sorted(set(missing) - ({_HEAD} if tied else set()))
    if absent or strange:
        names = ", ".join([*absent, *strange][:3])
        raise DataError(described, found=f"{len(absent)} missing and {len(strange)} unknown weights ({names})")
    model.tie_weights()
    return model


def _head_is_embedding(state: Mapping[str, torch.Tensor], described: Path) -> bool:
    """Tell whether the head is tied; the weights say it where they can, for the versions' defaults differ."""
    import torch

    try:
        tree = json.loads((described / "config.json").read_text(encoding="utf-8"))
        says = {place.get("tie_word_embeddings") for place in (tree, tree.get("text_config") or {})}
    except (ValueError, AttributeError):
        raise DataError(described / "config.json", found="no JSON object", expected="the model's config") from None
    if (head := state.get(_HEAD)) is None:
        return True in says or False not in says
    embedding = next((value for name, value in state.items() if name.endswith("embed_tokens.weight")), None)
    return True in says and embedding is not None and torch.equal(head, embedding)


def _verify(state: Mapping[str, torch.Tensor], out: Path, described: Path) -> None:
    """Load what was written, and compare every weight."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        AutoProcessor.from_pretrained(out, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as fault:
        what = f"a processor that does not load: {' '.join(str(fault).split())[:300]}"
        raise DataError(described, found=what, remedy="copy its files from the model that was trained") from None
    model, info = AutoModelForImageTextToText.from_pretrained(
        out, dtype="auto", output_loading_info=True, trust_remote_code=False
    )
    if odd := sorted(map(str, [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]])):
        raise DataError(described, found=f"{len(odd)} weights that do not load again ({odd[0]})")
    loaded = model.state_dict()
    for name, value in state.items():
        again = loaded.get(name)
        if again is None or again.dtype != value.dtype or not torch.equal(again, value):
            raise DataError(described, found=f"{name} different after loading")
