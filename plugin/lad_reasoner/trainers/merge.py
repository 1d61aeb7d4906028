"""Any trainer's checkpoint as one Hugging Face folder: FSDP shards joined, LoRA folded in, and the result verified.

EasyR1 and verl write the same into ``global_step_<n>/actor``: ``model_world_size_<w>_rank_<r>.pt`` holds each rank's
part of every parameter, ``huggingface`` the config, tokenizer and processor, ``lora_adapter`` the adapter's config.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from lad_reasoner.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["merge_checkpoint"]

Dtype = Literal["bfloat16", "float16", "float32"]
State = dict[str, "torch.Tensor"]

_SHARD: Final = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


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
    state = _fold_adapter(_join(actor), actor)
    state = {name: value.to(getattr(torch, dtype)) for name, value in state.items()}
    staging = out.with_name(f".{out.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    count = _write(state, described, staging)
    _verify(state, staging)
    staging.replace(out)
    return count


def _join(actor: Path) -> State:
    """Return the whole parameters of a sharded checkpoint."""
    import torch

    shards = {int(found[2]): path for path in actor.iterdir() if (found := _SHARD.fullmatch(path.name))}
    worlds = {int(found[1]) for path in shards.values() if (found := _SHARD.fullmatch(path.name))}
    if len(worlds) != 1 or set(shards) != set(range(max(worlds))):
        raise DataError(
            actor, found=f"shards of ranks {sorted(shards)}", expected="one of every rank of one world size"
        )
    # weights_only would refuse DTensor; a checkpoint of one's own training is trusted.
    parts = [torch.load(shards[rank], map_location="cpu", weights_only=False) for rank in sorted(shards)]
    return {name: _join_one([part[name] for part in parts]) for name in parts[0]}


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


def _fold_adapter(state: State, actor: Path) -> State:
    """Add each adapter's product to the weight that it adapts: W + B A alpha / r."""
    if not any(".lora_A." in name for name in state):
        return state
    settings = json.loads((actor / "lora_adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    scale = settings["lora_alpha"] / settings["r"]
    folded: State = {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        stem = name.removesuffix(".base_layer.weight")
        if stem != name and f"{stem}.lora_A.default.weight" in state:
            down, up = state[f"{stem}.lora_A.default.weight"], state[f"{stem}.lora_B.default.weight"]
            folded[plain] = (value.float() + up.float() @ down.float() * scale).to(value.dtype)
        else:
            folded[plain] = value
    return folded


def _write(state: Mapping[str, torch.Tensor], described: Path, out: Path) -> int:
    """Write weights, config and whatever else describes the model; return its number of parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(described)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=next(iter(state.values())).dtype)
    missing, strange = model.load_state_dict(dict(state), strict=False, assign=True)
    tied = _is_tied(config)
    absent = sorted(set(missing) - ({"lm_head.weight"} if tied else set()))
    if absent or strange:
        names = ", ".join([*absent, *strange][:3])
        raise DataError(described, found=f"{len(absent)} missing and {len(strange)} unknown weights ({names})")
    model.tie_weights()
    model.save_pretrained(out)
    for file in described.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and not (out / file.name).exists():
            shutil.copy2(file, out / file.name)
    # transformers 4 writes this only into the text config, from which transformers 5 does not read it.
    written = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps({**written, "tie_word_embeddings": tied}, indent=2), encoding="utf-8")
    return int(model.num_parameters())


def _is_tied(config: Any) -> bool:
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", False) or config.tie_word_embeddings)


def _verify(state: Mapping[str, torch.Tensor], out: Path) -> None:
    """Load what was written, and compare every weight."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    AutoProcessor.from_pretrained(out)
    model, info = AutoModelForImageTextToText.from_pretrained(out, dtype="auto", output_loading_info=True)
    if info["missing_keys"]:
        raise DataError(out, found=f"{len(info['missing_keys'])} weights that do not load again")
    loaded = model.state_dict()
    for name, value in state.items():
        if name in loaded and not torch.equal(loaded[name], value):
            raise DataError(out, found=f"{name} different after loading")
