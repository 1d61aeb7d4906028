"""Shards are joined as they were cut, and an adapter is folded in as its definition says."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from lad_reasoner.errors import DataError, UsageError
from lad_reasoner.trainers.merge import _fold_adapter, _join_one, merge_checkpoint

pytestmark = pytest.mark.frameworks


def part(tensor, mesh, placements):
    return SimpleNamespace(placements=placements, device_mesh=SimpleNamespace(mesh=mesh), to_local=lambda: tensor)


def test_shards_are_joined_along_their_dimension_also_with_replicas():
    import torch
    from torch.distributed.tensor import Replicate, Shard

    whole = torch.arange(12.0).reshape(6, 2)
    halves = list(whole.chunk(2))
    flat = [part(half, torch.tensor([0, 1]), (Shard(0),)) for half in halves]
    assert torch.equal(_join_one(flat), whole)
    mesh = torch.tensor([[0, 1], [2, 3]])  # two replicas of two shards
    hybrid = [part(half, mesh, (Replicate(), Shard(0))) for half in halves * 2]
    assert torch.equal(_join_one(hybrid), whole)
    assert torch.equal(_join_one([whole, whole]), whole)


def test_an_adapter_is_added_with_its_scale_and_names_become_the_models(tmp_path):
    import torch

    (tmp_path / "lora_adapter").mkdir()
    (tmp_path / "lora_adapter" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "r": 2}))
    weight, down, up = torch.zeros(3, 5), torch.ones(2, 5), torch.ones(3, 2)
    state = {
        "base_model.model.a.q_proj.base_layer.weight": weight,
        "base_model.model.a.q_proj.base_layer.bias": torch.ones(3),
        "base_model.model.a.q_proj.lora_A.default.weight": down,
        "base_model.model.a.q_proj.lora_B.default.weight": up,
        "base_model.model.norm.weight": torch.ones(5),
    }
    folded = _fold_adapter(state, tmp_path)
    assert set(folded) == {"a.q_proj.weight", "a.q_proj.bias", "norm.weight"}
    assert torch.equal(folded["a.q_proj.weight"], torch.full((3, 5), 4.0))  # 2 x alpha / r


def test_an_incomplete_or_foreign_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no huggingface/config\.json"):
        merge_checkpoint(tmp_path, tmp_path / "out")
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "config.json").write_text("{}")
    (tmp_path / "model_world_size_2_rank_1.pt").touch()
    with pytest.raises(DataError, match=r"shards of ranks \[1\]"):
        merge_checkpoint(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path):
    with pytest.raises(UsageError, match="which exists"):
        merge_checkpoint(tmp_path, tmp_path)
