"""Shards are joined as they were cut, and an adapter is folded in as its definition says."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lad_reasoner.models.compatibility import check_model_folder
from lad_reasoner.models.merge import _Joined, join_parts, merge_checkpoint
from lad_reasoner.models.merge_adapter import fold_adapter
from lad_reasoner.models.weights import read_header
from lad_reasoner.support.errors import DataError, UsageError
from lad_rehearsal.demo.tiny import BASE

pytestmark = pytest.mark.frameworks


def part(tensor, mesh, placements):
    return SimpleNamespace(placements=placements, device_mesh=SimpleNamespace(mesh=mesh), to_local=lambda: tensor)


def test_shards_are_joined_along_their_dimension_also_with_replicas():
    import torch
    from torch.distributed.tensor import Replicate, Shard

    whole = torch.arange(12.0).reshape(6, 2)
    halves = list(whole.chunk(2))
    flat = [part(half, torch.tensor([0, 1]), (Shard(0),)) for half in halves]
    assert torch.equal(join_parts(flat), whole)
    mesh = torch.tensor([[0, 1], [2, 3]])  # two replicas of two shards
    hybrid = [part(half, mesh, (Replicate(), Shard(0))) for half in halves * 2]
    assert torch.equal(join_parts(hybrid), whole)
    assert torch.equal(join_parts([whole, whole]), whole)


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
    folded = dict(fold_adapter(state, tmp_path))
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
    with pytest.raises(UsageError, match="exists"):
        merge_checkpoint(tmp_path, tmp_path)


def base(*, tied: bool = True) -> Any:
    """The tiny model; untied, with a head of its own."""
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(BASE)
    if not tied:
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
        torch.manual_seed(0)
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


def checkpoint(folder: Path, model: Any) -> Path:
    """A trainer's checkpoint of one rank: a shard, and what describes the model beside it."""
    import torch

    actor = folder / "global_step_3" / "actor"
    described = actor / "huggingface"
    described.mkdir(parents=True)
    for file in BASE.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy2(file, described / file.name)
    model.config.save_pretrained(described)
    torch.save(model.state_dict(), actor / "model_world_size_1_rank_0.pt")
    return actor


def with_adapter(**settings: Any) -> Any:
    """The tiny model with an adapter that changes it."""
    import torch

    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(target_modules="all-linear", init_lora_weights=False, **settings)
    return peft.get_peft_model(base(), config)


def weights_of(folder: Path) -> dict[str, Any]:
    """What transformers loads, by the model's own names."""
    from transformers import AutoModelForImageTextToText

    weights: dict[str, Any] = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").state_dict()
    return weights


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_checkpoint_becomes_a_whole_model_of_the_chosen_type(tmp_path, dtype):
    import torch

    model = base()
    count = merge_checkpoint(checkpoint(tmp_path, model).parent, tmp_path / "out", dtype=dtype)
    merged, wanted = weights_of(tmp_path / "out"), model.state_dict()
    assert count == sum(weight.numel() for weight in model.parameters())
    assert set(merged) == set(wanted)
    assert all(torch.equal(merged[name], wanted[name].to(getattr(torch, dtype))) for name in merged)
    assert read(tmp_path / "out" / "config.json")["dtype"] == dtype
    # What a model made of a config alone would not have: all tokens that end an answer, how to sample.
    assert read(tmp_path / "out" / "generation_config.json") == read(BASE / "generation_config.json")
    assert len(read(BASE / "generation_config.json")["eos_token_id"]) == 2
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (BASE / "tokenizer.json").read_bytes()
    # Either version of transformers reads it, and nothing of the work is left.
    assert check_model_folder(tmp_path / "out") == []
    assert not [file.name for file in tmp_path.rglob("*") if file.name.endswith((".bak", ".part"))]


@pytest.mark.parametrize("places", [("top", "text"), ("top",), ("text",), ()])
@pytest.mark.parametrize("tied", [True, False])
def test_whether_the_head_is_tied_is_told_by_the_weights(tmp_path, tied, places):
    """Also where the config says it in one place only, as each version of transformers writes it, or in none."""
    import torch

    model = base(tied=tied)
    actor = checkpoint(tmp_path, model)
    if tied:  # as verl saves it, without the copy
        state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
        torch.save(state, actor / "model_world_size_1_rank_0.pt")
    file = actor / "huggingface" / "config.json"
    tree = read(file)
    for place, part in (("top", tree), ("text", tree["text_config"])):
        part.pop("tie_word_embeddings", None)
        if place in places:
            part["tie_word_embeddings"] = tied
    file.write_text(json.dumps(tree))
    merge_checkpoint(actor, tmp_path / "out", dtype="float32")
    written = read(tmp_path / "out" / "config.json")
    assert [part["tie_word_embeddings"] for part in (written, written["text_config"])] == [tied, tied]
    assert ("lm_head.weight" in read_header(tmp_path / "out" / "model.safetensors")) is not tied


@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.parametrize("trainer", ["easyr1", "verl"])
def test_a_merged_adapter_is_what_peft_makes_of_it(tmp_path, trainer, rslora):
    """Of EasyR1's checkpoints and of verl's, which describe the adapter in files of their own."""
    import torch

    model = with_adapter(r=4, lora_alpha=6, use_rslora=rslora and trainer == "easyr1")
    actor = checkpoint(tmp_path, model)
    if trainer == "easyr1":
        model.peft_config["default"].save_pretrained(actor / "lora_adapter")
    else:
        (actor / "lora_train_meta.json").write_text('{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM"}')
    merge_checkpoint(actor, tmp_path / "out", dtype="float32")
    wanted, before = model.merge_and_unload().state_dict(), base().state_dict()
    merged = weights_of(tmp_path / "out")
    for name, weight in merged.items():
        torch.testing.assert_close(weight, wanted[name], atol=1e-5, rtol=1e-5)
    assert sum(not torch.equal(merged[name], before[name]) for name in merged) > 30
    assert check_model_folder(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("description", "says"),
    [
        (None, "a LoRA adapter without a description: no lora_adapter/adapter_config.json or lora_train"),
        ("{", "Invalid JSON"),
        ("[1]", "Input should be an object"),
        ('{"lora_alpha": 6}', "r: Field required"),
        ('{"r": 8, "lora_alpha": 6}', "the adapter has rank 4, and its description 8"),
        (
            '{"r": 4, "lora_alpha": 6, "use_dora": true}',
            "use_dora is set, so this is not a plain LoRA adapter. Load it with",
        ),
        (
            '{"r": 4, "lora_alpha": 6, "alpha_pattern": {"q_proj": 8}}',
            "alpha_pattern is set, so this is not a plain LoRA",
        ),
    ],
)
def test_an_adapter_that_cannot_be_folded_in_is_refused(tmp_path, description, says):
    actor = checkpoint(tmp_path, with_adapter(r=4, lora_alpha=6))
    if description is not None:
        (actor / "lora_train_meta.json").write_text(description)
    with pytest.raises(DataError) as caught:
        merge_checkpoint(actor, tmp_path / "out")
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_no_part_of_an_adapter_is_left_out(tmp_path):
    """Embeddings are adapted in another form: dropped, another model would come out and load."""
    import torch

    (tmp_path / "lora_train_meta.json").write_text('{"r": 2, "lora_alpha": 4}')
    state = {f"base_model.model.e.lora_embedding_{letter}.default": torch.ones(2, 2) for letter in "AB"}
    with pytest.raises(DataError, match=r"2 weights of the adapter .*lora_embedding_A.*merge_and_unload"):
        dict(fold_adapter(state | {"base_model.model.e.base_layer.weight": torch.ones(2, 2)}, tmp_path))
    pair = {f"base_model.model.q.lora_{letter}.default.weight": torch.ones(2, 2) for letter in "AB"}
    with pytest.raises(DataError, match="2 weights of the adapter"):  # saved without the model
        dict(fold_adapter(pair, tmp_path))


def break_shard(actor: Path) -> None:
    shard = actor / "model_world_size_1_rank_0.pt"
    shard.write_bytes(shard.read_bytes()[:-2000])


def lose_weight(actor: Path) -> None:
    import torch

    shard = actor / "model_world_size_1_rank_0.pt"
    state = torch.load(shard)
    del state["model.language_model.norm.weight"]
    torch.save(state, shard)


def disagree(actor: Path) -> None:
    import torch

    state = torch.load(actor / "model_world_size_1_rank_0.pt")
    (actor / "model_world_size_1_rank_0.pt").rename(actor / "model_world_size_2_rank_0.pt")
    state.popitem()
    torch.save(state, actor / "model_world_size_2_rank_1.pt")


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("content", ["only", "within", "raw"])
def test_nothing_of_a_shard_is_executed(tmp_path, content):
    import torch

    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "config.json").write_text("{}")
    shard, mark = tmp_path / "model_world_size_1_rank_0.pt", tmp_path / "executed"
    if content == "raw":
        shard.write_bytes(pickle.dumps(Hostile(mark)))
    else:
        torch.save(Hostile(mark) if content == "only" else {"w": torch.ones(2), "x": Hostile(mark)}, shard)
    with pytest.raises(DataError, match="shard") as caught:
        merge_checkpoint(tmp_path, tmp_path / "out")
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    if content != "raw":
        assert "nothing of it was executed" in str(caught.value)


def test_shards_of_a_trainer_are_read_as_data(tmp_path):
    """DTensor of both meshes, as FSDP saves them, read in a process without a process group."""
    code = """
import sys, torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
flat, hybrid = init_device_mesh("cpu", (1,)), init_device_mesh("cpu", (1, 1), mesh_dim_names=("ddp", "fsdp"))
weight = torch.arange(6, dtype=torch.bfloat16).reshape(3, 2)
torch.save({"a": DTensor.from_local(weight, flat, [Shard(0)]),
            "b": DTensor.from_local(weight, hybrid, [Replicate(), Shard(0)]),
            "c": torch.nn.Parameter(weight.float())}, sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model_world_size_1_rank_0.pt")], check=True)
    joined = _Joined(tmp_path)
    assert [joined[name].tolist() for name in joined] == [[[0, 1], [2, 3], [4, 5]]] * 3


@pytest.mark.parametrize(
    ("state", "says"),
    [({1: None}, "1 is a NoneType, not a weight"), ({"w": "x"}, "'w' is a str, not a weight"), ([1], "holds a list")],
)
def test_what_is_no_weight_is_named(tmp_path, state, says):
    import torch

    torch.save(state, tmp_path / "model_world_size_1_rank_0.pt")
    with pytest.raises(DataError, match=says):
        _Joined(tmp_path)


@pytest.mark.parametrize("names", [["1_rank_0", "2_rank_0", "2_rank_1"], ["99999999999_rank_0"], ["0_rank_0"]])
def test_shards_of_several_or_impossible_world_sizes_are_refused(tmp_path, names):
    for name in names:
        (tmp_path / f"model_world_size_{name}.pt").touch()
    with pytest.raises(DataError, match="not one of every rank of one world size"):
        _Joined(tmp_path)


def test_a_shard_that_is_a_pipe_or_a_folder_is_not_read(tmp_path):
    shard = tmp_path / "model_world_size_1_rank_0.pt"
    os.mkfifo(shard)
    with pytest.raises(DataError, match="not a regular file"):
        _Joined(tmp_path)
    shard.unlink()
    shard.mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        _Joined(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (break_shard, "not a whole shard"),
        (lose_weight, "1 missing and 0 unknown weights (model.language_model.norm.weight)"),
        (disagree, "model_world_size_2_rank_1.pt: 1 weights at odds with rank 0's"),
        (lambda actor: (actor / "huggingface" / "config.json").write_text("{"), "not a JSON object"),
        (lambda actor: (actor / "huggingface" / "config.json").write_text("[" * 100_000), "not a JSON object"),
        (lambda actor: (actor / "huggingface" / "config.json").write_text("{}"), "not the model's config"),
        (lambda actor: (actor / "huggingface" / "processor_config.json").unlink(), "the processor does not load"),
        (lambda actor: (actor / "model_world_size_1_rank_0.pt").write_bytes(b""), "not a whole shard"),
        (
            lambda actor: (actor / "huggingface" / "notes.txt").symlink_to("/etc/hostname"),
            "this link leaves the checkpoint",
        ),
    ],
)
def test_a_broken_checkpoint_is_said_and_leaves_nothing(tmp_path, spoil, says):
    actor = checkpoint(tmp_path, base())
    spoil(actor)
    with pytest.raises(DataError) as caught:
        merge_checkpoint(actor, tmp_path / "out")
    assert says in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["global_step_3"]


def test_weights_saved_beside_the_shards_do_not_get_among_the_merged(tmp_path):
    """A large model is saved in several files with an index, which would name files that are not there."""
    actor = checkpoint(tmp_path, base())
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "training_args.bin"):
        (actor / "huggingface" / name).write_text('{"weight_map": {}}')
    merge_checkpoint(actor, tmp_path / "out")
    assert not {file.name for file in (tmp_path / "out").iterdir()} & {
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "training_args.bin",
    }


#: Prints the peak of the private memory that merging takes, in MB; mapped files do not count, the kernel can
#: drop them.
PEAK = """
import sys, threading, time
import torch, transformers
from lad_reasoner.models.merge import merge_checkpoint
from pathlib import Path

def private():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon"))

transformers.AutoProcessor.from_pretrained(Path(sys.argv[1]) / "huggingface")
before, peak, done = private(), 0.0, False
def watch():
    global peak
    while not done:
        peak = max(peak, private())
        time.sleep(0.005)
thread = threading.Thread(target=watch)
thread.start()
merge_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]), dtype="bfloat16")
done = True
thread.join()
print(peak - before)
"""


@pytest.mark.slow
def test_merging_needs_little_more_memory_than_the_largest_weight(tmp_path):
    """Eight shards, each of a whole model whose embedding is nearly all of it."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(BASE)
    config.text_config.vocab_size = 400_000
    model = AutoModelForImageTextToText.from_config(config)
    actor = checkpoint(tmp_path, model)
    largest = max(weight.numel() for weight in model.parameters()) * 4 / 2**20
    first = actor / "model_world_size_1_rank_0.pt"
    for rank in range(8):
        shutil.copy2(first, actor / f"model_world_size_8_rank_{rank}.pt")
    size = first.stat().st_size / 2**20
    first.unlink()
    words = [sys.executable, "-c", PEAK, str(actor), str(tmp_path / "out")]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert float(run.stdout.split()[-1]) <= 1.5 * largest + size
