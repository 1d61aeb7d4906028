"""Our data, configs, reward file and rehearsal against EasyR1's own code, in a checkout that EASYR1_HOME names.

Its code is run in processes of its own, because it is imported as ``verl`` like the other trainer. EASYR1_PYTHON names
the python that has what EasyR1 needs; without it, this one is used, and what asks for transformers < 5 is skipped
where that is not what is installed.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.trainers.conftest import assert_parts_logged, pair, write_pairs

from lad_reasoner.pairs.schema import pair_schema
from lad_reasoner.pairs.tokens import ProcessorPixels, TrainerPixels, image_tokens
from lad_reasoner.support.errors import RunError
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.easyr1.keys import read_snapshot, read_source
from lad_rehearsal.demo.tiny import BASE
from lad_rehearsal.easyr1_cpu.environment import easyr1_environment
from lad_rehearsal.rehearse.runtime import find_runtime

pytestmark = pytest.mark.easyr1

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted([*(REPOSITORY / "examples" / "grpo").glob("qwen*"), REPOSITORY / "examples" / "demo" / "grpo.yaml"])
PAPERS = REPOSITORY / "examples" / "grpo" / "qwen2_5_vl_3b_loco.yaml"
LORA = REPOSITORY / "examples" / "grpo" / "qwen2_5_vl_3b_1x24gb_lora.sh"
PYTHON = os.environ.get("EASYR1_PYTHON") or sys.executable


@pytest.fixture(scope="module")
def easyr1_home() -> Path:
    home = os.environ.get("EASYR1_HOME")
    if not home or not (Path(home) / "verl" / "trainer" / "config.py").is_file():
        pytest.skip("set EASYR1_HOME to a checkout of hiyouga/EasyR1 (commit in REQUIRED_EASYR1)")
    return Path(home).absolute()


@pytest.fixture(scope="module")
def trainer_home(easyr1_home: Path) -> Path:
    """The checkout, where its trainer can run: it imports what transformers 5 has no more."""
    try:
        find_runtime("easyr1")
    except RunError as error:
        pytest.skip(f"EasyR1's trainer cannot run here: {error}")
    return easyr1_home


def run_in_easyr1(home: Path, folder: Path, code: str, *arguments: object) -> Any:
    """Run code with EasyR1's ``verl`` and the stand-in for vLLM; return the JSON of its last line."""
    environment = os.environ | easyr1_environment(folder, checkout=home)
    command = [PYTHON, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.strip().splitlines()[-1])


def test_the_snapshot_of_keys_is_that_of_the_checkout(easyr1_home):
    assert read_source(easyr1_home / "verl") == read_snapshot()


ACCEPT = """
import json, sys
from omegaconf import OmegaConf
from verl.trainer.config import PPOConfig
read = {}
for file, words in json.loads(sys.argv[1]).items():
    given = OmegaConf.from_cli(words)  # from here on as in EasyR1's main
    config = OmegaConf.merge(OmegaConf.structured(PPOConfig()), OmegaConf.load(given.pop("config")), given)
    config = OmegaConf.to_object(config)
    config.deep_post_init()
    read[file] = config.to_dict()
print(json.dumps(read))
"""


@pytest.fixture(scope="module")
def accepted(easyr1_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What EasyR1 reads in each example, all in one process: its imports take most of the time."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "python").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")  # prints what a script gives to python
    (folder / "python").chmod(0o755)
    words = {}
    for file in EXAMPLES:
        words[str(file)] = [f"config={file}"]
        if file.suffix == ".sh":
            environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
            run = subprocess.run(["/bin/bash", file], capture_output=True, text=True, env=environment, check=True)
            start, words[str(file)] = run.stdout.split("\n")[:2], run.stdout.split("\n")[2:-1]
            assert start == ["-m", "verl.trainer.main"]
    return run_in_easyr1(easyr1_home, folder, ACCEPT, json.dumps(words))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_ppoconfig_accepts_every_example_and_reads_what_we_read(accepted, example):
    theirs = accepted[str(example)]
    ours = load_config([f"config={example}"])
    for name, value in ours.values.items():
        node = theirs
        for part in name.split("."):
            node = node[part]
        if name == "worker.reward.reward_function":
            node = f"{node}:{theirs['worker']['reward']['reward_function_name']}"
        if name in {"data.train_files", "data.val_files"}:
            continue  # EasyR1 leaves them relative
        assert node == value, name


READ = """
import json, sys
from omegaconf import OmegaConf
from verl.trainer.config import PPOConfig
from verl.trainer.data_loader import create_dataloader
from verl.utils.dataset import RLHFDataset
from verl.utils.tokenizer import get_processor, get_tokenizer
model, words = sys.argv[1], sys.argv[2:]
def main():
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PPOConfig()), OmegaConf.from_dotlist(words)))
    config.deep_post_init()
    tokenizer, processor = get_tokenizer(model, use_fast=True), get_processor(model, use_fast=True)
    train, val = create_dataloader(config.data, tokenizer, processor)
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    rows = []
    for row in (train.dataset[i] for i in range(len(train.dataset))):
        rows.append({
            "images": [len(image["bytes"]) for image in row["multi_modal_data"]["images"]],
            "image_tokens": int((row["input_ids"] == pad).sum()),
            "tokens": int(row["attention_mask"].sum()),
            "text": tokenizer.decode(row["raw_prompt_ids"]),
            "positions": list(row["position_ids"].shape),
            "answer": row["ground_truth"],
            "pair_id": row["pair_id"],
        })
    batch = next(iter(train))
    print(json.dumps({"rows": rows, "batch": list(batch["input_ids"].shape), "train": len(train), "val": len(val)}))
main()
"""


def test_its_dataset_and_dataloader_read_our_parquet(easyr1_home, tmp_path):
    sizes = [(84, 84), (56, 84), (84, 112), (84, 84), (200, 90)]  # the last is too long
    pairs = [pair(number, size=size) for number, size in enumerate(sizes)]
    rows = [one.to_row() for one in pairs]
    pq.write_table(pa.Table.from_pylist(rows, schema=pair_schema()), tmp_path / "pairs.parquet")
    template = REPOSITORY / "plugin" / "lad_reasoner" / "task" / "prompts" / "rlad.jinja"
    assert template.is_file(), "EasyR1 would go on without it, silently"
    words = [
        f"data.train_files={tmp_path}/pairs.parquet",
        f"data.val_files={tmp_path}/pairs.parquet@train",
        "data.prompt_key=problem",
        f"data.format_prompt={template}",
        "data.max_prompt_length=100",
        "data.min_pixels=3136",
        "data.max_pixels=20000",
        "data.rollout_batch_size=2",
    ]
    bounds = {"longest_edge": 12845056, "shortest_edge": 3136}
    model = tmp_path / "model"
    model.mkdir()
    for file in BASE.iterdir():
        if file.suffix != ".safetensors":
            text = file.read_text(encoding="utf-8")
            (model / file.name).write_text(text.replace('"longest_edge": 7056', f'"longest_edge": {12845056}'))
    read = run_in_easyr1(easyr1_home, tmp_path, READ, model, *words)
    trainer = TrainerPixels(3136, 20000)
    processor = ProcessorPixels(factor=28, min_pixels=bounds["shortest_edge"], max_pixels=bounds["longest_edge"])
    expected = {
        one.pair_id: 2 * image_tokens(*size, trainer=trainer, processor=processor)
        for one, size in zip(pairs, sizes, strict=True)
    }
    assert len({*expected.values()}) > 2
    lengths = {row["pair_id"]: row["tokens"] for row in read["rows"]}
    kept = [one.pair_id for one in pairs if one.pair_id in lengths]
    assert kept == [one.pair_id for one in pairs if expected[one.pair_id] <= 24]  # what fits beside the text
    assert 0 < len(kept) < len(pairs)
    for row in read["rows"]:
        source = next(given for given in rows if given["pair_id"] == row["pair_id"])
        assert row["images"] == [len(image["bytes"]) for image in source["images"]]
        assert row["image_tokens"] == expected[row["pair_id"]]
        assert row["tokens"] == row["image_tokens"] + lengths[kept[0]] - expected[kept[0]]  # the same text
        assert row["positions"] == [4, 100]
        assert row["text"].count("<|image_pad|>") == 2
        assert "Reason first, then answer." in row["text"]
        assert json.loads(row["answer"])["label"] == source["label"]
    assert read["batch"] == [2, 100]
    assert (read["train"], read["val"]) == (len(kept) // 2, 1)


CALL = """
import json, sys
from verl.workers.reward.config import RewardConfig
from verl.workers.reward.function import AutoRewardManager
import torch
from verl.protocol import DataProto
import numpy as np
class Tokenizer:
    def decode(self, ids, skip_special_tokens): return "".join(chr(i) for i in ids.tolist())
options = {"structure_weight": 0.5, "naming_weight": 0.2, "overlong_weight": 1.0, "overlong_limit": 60}
config = RewardConfig(reward_function=sys.argv[1], reward_function_kwargs=options)
config.post_init()
manager = AutoRewardManager(config, Tokenizer())
texts = ["<think> a pin is missing </think><answer> yes </answer>", "<answer> no </answer>"]
width = max(map(len, texts))
responses = torch.tensor([[*map(ord, t), *[0] * (width - len(t))] for t in texts])
mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in texts])
gold = np.array(['{"label": "yes", "category": "pushpins", "defect": "missing_pushpin"}'] * 2, dtype=object)
data = DataProto.from_dict({"responses": responses, "response_mask": mask}, {"ground_truth": gold})
rewards, metrics = manager.compute_reward(data)
print(json.dumps([rewards.sum(-1).tolist(), metrics["accuracy_pushpins"], metrics["naming"], metrics["overlong"]]))
"""


def test_autorewardmanager_calls_our_file(easyr1_home, tmp_path):
    reward = REPOSITORY / "plugin" / "lad_reasoner" / "training" / "easyr1" / "reward.py"
    rewards, accuracy, naming, overlong = run_in_easyr1(easyr1_home, tmp_path, CALL, f"{reward}:compute_score")
    assert accuracy == naming == [1.0, 0.0]
    # 55 tokens of 60, with a buffer of 12; a character is a token here.
    assert overlong == pytest.approx([-7 / 12, 0.0])
    assert rewards == pytest.approx([1.0 + 0.2 - 7 / 12, 0.0])


SAMPLE = """
import json, sys
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm import LLM, SamplingParams
folder = sys.argv[1]
engine = LLM(model=folder, dtype="float32", max_model_len=200, limit_mm_per_prompt={"image": 2})
processor, model = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder).eval()
colours = (("red", "blue"), ("white", "black"))
pictures = [[Image.new("RGB", (84, 84), colour) for colour in some] for some in colours]
chats = [[{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": text}]}]
         for text in ("yes or no", "Can you find any anomaly in the query image?")]
texts = [processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
encode = processor.tokenizer.encode
prompts = [{"prompt_token_ids": encode(text, add_special_tokens=False), "multi_modal_data": {"image": some}}
           for text, some in zip(texts, pictures)]
ids = lambda outputs: [[one.token_ids for one in output.outputs] for output in outputs]
greedy = ids(engine.generate(prompts, SamplingParams(n=2, temperature=0.0, max_tokens=40)))
theirs = []
for text, some in zip(texts, pictures):  # one by one: nothing is padded
    inputs = processor(text=[text], images=some, return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    theirs.append(made[0, inputs["input_ids"].shape[1]:].tolist())
drawn = [ids(engine.generate(prompts, SamplingParams(n=3, seed=1, max_tokens=8))) for _ in range(2)]
again = LLM(model=folder)
same = ids(again.generate(prompts, SamplingParams(n=3, seed=1, max_tokens=8)))
first = greedy[0][0][0]
banned = ids(engine.generate(prompts, SamplingParams(temperature=0.0, max_tokens=1, logit_bias={first: -100})))
def refusal(prompt):
    try: engine.generate([prompt], SamplingParams())
    except ValueError as error: return str(error)
refused = {
    "many": refusal({**prompts[0], "multi_modal_data": {"image": pictures[0] * 2}}),
    "fewer": refusal({**prompts[0], "multi_modal_data": {"image": pictures[0][:1]}}),
    "long": refusal({**prompts[0], "prompt_token_ids": prompts[0]["prompt_token_ids"] + [5] * 300}),
}
made = {"greedy": greedy, "theirs": theirs, "drawn": drawn, "same": same, "banned": banned}
print(json.dumps(made | refused))
"""


def test_the_stand_in_samples_as_the_model_does(trainer_home, tmp_path):
    made = run_in_easyr1(trainer_home, tmp_path, SAMPLE, BASE)
    assert made["greedy"] == [[ids, ids] for ids in made["theirs"]]
    assert len(made["theirs"][0]) > 5
    assert made["drawn"][0] != made["drawn"][1]
    assert made["drawn"][0] == made["same"]  # the seed decides
    assert len({tuple(ids) for output in made["drawn"][0] for ids in output}) > 3
    assert made["banned"][0][0][0] != made["greedy"][0][0][0]
    assert made["many"] == "At most 2 image(s) may be provided in one prompt, found 4."
    assert made["fewer"] == "The prompt has 2 image placeholder(s) and 1 image(s)."
    assert "max_model_len is 200" in made["long"]


def rehearse(home: Path, config: Path, folder: Path, *words: str) -> dict[str, Any]:
    train, val = (
        write_pairs(folder / "train.parquet", 96),
        write_pairs(folder / "val.parquet", 8, dataset="mvtec_loco"),
    )
    data = [f"data.train_files={train}", f"data.val_files={val}"]
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", "rehearse", f"config={config}", *data, *words]
    run = subprocess.run(
        [*command, "--json", "--out", str(folder / "out")],
        capture_output=True,
        text=True,
        env=os.environ | {"EASYR1_HOME": str(home)},
        cwd=REPOSITORY,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    assert report["trainer"] == f"easyr1 checkout {home}"
    return report


def weights_of(checkpoint: str) -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    shard = Path(checkpoint) / "actor" / "model_world_size_1_rank_0.pt"
    state = torch.load(shard, weights_only=False)
    return {name: getattr(weight, "_local_tensor", weight) for name, weight in state.items()}


def merged(checkpoint: str, out: Path) -> dict[str, Any]:
    """Make a model of a checkpoint, load it, and return its weights."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForImageTextToText

    words = ["merge", checkpoint, "--out", str(out), "--dtype", "float32"]
    run = subprocess.run(
        [sys.executable, "-m", "lad_reasoner.commands.easyr1", *words], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    state: dict[str, Any] = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32).state_dict()
    return state


@pytest.mark.slow
def test_its_trainer_does_two_steps(trainer_home, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForImageTextToText

    report = rehearse(trainer_home, PAPERS, tmp_path, "worker.actor.optim.lr=1e-3")
    trained = [step for step in report["steps"] if "reward" in step]
    assert [step["step"] for step in trained] == [1, 2]
    assert trained[0]["reward"] > 0
    assert trained[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert trained[1]["kl"] != pytest.approx(0.0, abs=1e-6)  # the second step samples from weights that have moved
    for step in trained:
        assert_parts_logged(step)
    assert_parts_logged(trained[-1], "val/")
    before = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "model", dtype=torch.float32).state_dict()
    after = weights_of(report["checkpoint"])
    assert set(after) == set(before)
    moved = [name for name, weight in before.items() if not torch.equal(weight, after[name])]
    assert len(moved) > len(before) // 2
    whole = merged(report["checkpoint"], tmp_path / "merged")
    assert all(torch.equal(whole[name], weight) for name, weight in after.items())


@pytest.mark.slow
def test_adapters_reach_the_rollout(trainer_home, tmp_path):
    report = rehearse(trainer_home, LORA, tmp_path, "worker.actor.optim.lr=1e-2")
    trained = [step for step in report["steps"] if "reward" in step]
    assert [step["step"] for step in trained] == [1, 2]
    after = weights_of(report["checkpoint"])
    ups = [weight for name, weight in after.items() if "lora_B" in name]
    assert ups
    assert any(bool(weight.any()) for weight in ups)  # they start at zero
    assert (Path(report["checkpoint"]) / "actor" / "lora_adapter" / "adapter_model.safetensors").is_file()
    whole = merged(report["checkpoint"], tmp_path / "merged")
    frozen = {name.removeprefix("base_model.model."): weight for name, weight in after.items() if "lora_" not in name}
    adapted = [name for name in frozen if ".base_layer." in name]
    assert adapted
    moved = [name for name in adapted if not whole[name.replace(".base_layer", "")].equal(frozen[name])]
    assert moved  # with the adapter folded in
    assert all(whole[name].equal(weight) for name, weight in frozen.items() if name not in adapted)


def test_vllm_is_given_what_the_table_of_engine_settings_assumes(easyr1_home):
    """`test_verl_config` compares verl's engine with these."""
    source = (easyr1_home / "verl" / "workers" / "rollout" / "vllm_rollout_spmd.py").read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (engine,) = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "LLM"]
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in engine.keywords if keyword.arg}
    assert given["max_model_len"] == "config.max_model_len or config.prompt_length + config.response_length"
    assert given["load_format"] == "'dummy' if not self.lora_kwargs else 'safetensors'"
    names = ("max_num_batched_tokens", "enable_chunked_prefill", "gpu_memory_utilization", "tensor_parallel_size")
    for name in (*names, "enforce_eager", "disable_log_stats", "seed"):
        assert given[name] == f"config.{name}"
