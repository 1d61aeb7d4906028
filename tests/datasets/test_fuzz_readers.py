"""Whatever a file contains, its reader returns a result or raises one readable sentence.

Each reader gets a valid file in which a value or a few tokens were replaced, repeated, moved or removed. Pair parquets
have their own test, test_hostile_parquets.py.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from tests.datasets.conftest import tiny_mask, tiny_png
from tests.pair_files import image, make_pair

from lad_datasets.annotate.reply import InvalidReplyError, RefusalError, parse_reply
from lad_datasets.annotate.review import read_rates, read_subjects
from lad_datasets.annotate.store import Store
from lad_datasets.annotate.subjects import Subject
from lad_datasets.builders.sft_target import read_counts
from lad_datasets.checks.check import CheckOptions, check_file
from lad_datasets.files.annotations import read_annotations
from lad_datasets.recipes import recipe
from lad_datasets.sources import mmad, mvtec_loco, visa
from lad_datasets.sources.samples import read_marker
from lad_reasoner.evaluation.external import read_external
from lad_reasoner.evaluation.mmad import read_letter
from lad_reasoner.inference.backends.openai import score_reply
from lad_reasoner.inference.predict import read_format_prompt
from lad_reasoner.inference.predictions import read_predictions, read_run_card
from lad_reasoner.pairs.prompt_length import read_tokenizer
from lad_reasoner.pairs.schema import pair_schema
from lad_reasoner.report.training_curves import last_values, read_runs
from lad_reasoner.support.chat_reply import read_reply
from lad_reasoner.support.errors import LadError
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.openai_client import ChatServer, NoReplyError
from lad_reasoner.support.visible import visible
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.optional_rewards import OptionalRewards, OptionError
from lad_reasoner.task.response import parse, read_outcome
from lad_reasoner.task.rewards import combined_reward
from lad_reasoner.task.task import prompt_text
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.metrics import read_metrics
from lad_reasoner.training.preflight.sft_config import check_sft
from lad_reasoner.training.reward_keys import read_options
from lad_rehearsal.demo.progress import Progress
from lad_rehearsal.demo.stages import Stage, read_record

JUNK: Final = (
    *(b"null", b"true", b"-1", b"0", b"0.5", b"NaN", b"1e999", b"9" * 40, b"9" * 5000, b"[]", b"{}", b'""', b"x"),
    *(b'"x"', b"[null]", b'{"a": 1}', b'[{"a": [1]}]', b"[" * 3000, b'{"a":' * 3000, b'"\\ud800"', b"\xff\xfe"),
    *(
        b"\x00",
        b"\xef\xbb\xbf",
        b"\x1b[31m",
        b"\xe2\x80\xae",
        b"\n",
        b"\r",
        b"\t",
        b",",
        b":",
        b'"',
        b"'",
        b"..",
        b"=",
    ),
    *(
        b"!!int x",
        b"!!timestamp x",
        b"!!python/name:os.system ",
        b"&a [*a]",
        b"*a",
        b"? ",
        b"- ",
        b"%TAG",
        b"|",
        b"${x}",
    ),
    *(
        b"2001-02-30",
        b"2001-01-01",
        b"0x",
        b"1_0",
        b".inf",
        b"yes",
        b"no",
        b"<image>",
        b"../../etc/passwd",
        b"/dev/zero",
    ),
)
TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w.+-]+|\s+|.', re.DOTALL)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "remove", "repeat", "move"]),
        st.integers(0, 1 << 20),
        st.sampled_from(JUNK),
    ),
    min_size=1,
    max_size=4,
)


VALUES: Final = (
    None,
    True,
    -1,
    0.5,
    math.nan,
    10**40,
    [],
    {},
    "",
    "x",
    "a\x1b[31m\n",
    [None],
    [{"a": [1]}],
    {"a": {}},
)


def altered(data: bytes, place: int, value: object) -> bytes:
    """Return a JSON lines file with one value replaced, at any depth; a file of another kind as it is."""
    try:
        rows = [json.loads(line) for line in data.splitlines()]
    except ValueError:
        return data
    places = list(_iter_places(rows))
    holder, key = places[place % len(places)]
    holder[key] = value
    return lines(*rows)


def _iter_places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the container and the key of every value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _iter_places(value[key])


def edited(data: bytes, edits: Sequence[tuple[str, int, bytes]]) -> bytes:
    """Return a file with some of its tokens changed."""
    tokens = TOKEN.findall(data)
    for how, place, junk in edits:
        at = place % (len(tokens) + 1)
        words = tokens[at : at + 1]
        match how:
            case "replace":
                tokens[at : at + 1] = [junk]
            case "insert":
                tokens.insert(at, junk)
            case "remove":
                del tokens[at : at + 1 + len(junk) % 7]
            case "repeat":
                tokens[at:at] = words * 3
            case "move":
                del tokens[at : at + 1]
                tokens[len(junk) * 31 % (len(tokens) + 1) : 0] = words
    return b"".join(tokens)


ANNOTATION = {
    "id": "a#1",
    "images": ["a.png"],
    "question": "<image>Is it sound?",
    "answer": "It is.",
    "dataset": "own",
}
ANNOTATION |= {"category": "gear"}
SUBJECT = {"id": "a", "statements": [{"question": "Any defect?", "answer": "Yes."}], "caption": "c", "mask": "m.png"}
DECISION = {"id": "a#1", "decision": "edit", "question": "<image>Well?", "answer": "Well."}
SAMPLING = {"temperature": 0, "max_new_tokens": 8, "seed": 0, "structured": False, "min_pixels": None, "max_pixels": 9}
RUN = {
    "model": "m",
    "model_digest": None,
    "backend": "openai",
    "dtype": None,
    "prompt_sha256": "0",
    "data_sha256": "1",
}
PREDICTION = {
    **RUN,
    "sampling": SAMPLING,
    "pair_id": "p",
    "sample": 0,
    "response": "yes",
    "score": 0.5,
    "seconds": 1.5,
}
QUESTION = {
    "Question": "Any defect?",
    "Answer": "A",
    "Options": {"A": "Yes.", "B": "No."},
    "type": "Anomaly Detection",
}
MMAD = {
    "DS-MVTec/bottle/image/broken_large/000.png": {
        "mask_path": "rbg_mask/broken_large/000_rbg_mask.png",
        "conversation": [QUESTION],
        "similar_templates": ["DS-MVTec/bottle/image/good/001.png"],
        "random_templates": ["DS-MVTec/bottle/image/good/002.png"],
    }
}
STORE = {"model": "m", "base_url": "http://x", "prompt_sha256": "0", "max_pixels": 9}
REPLIES = [
    {"event": "run", **STORE},
    {"event": "sent", "id": "a", "attempt": 1, "cost_bound": 0.1},
    {"event": "failed", "id": "a", "attempt": 1, "reason": "busy", "cost_bound": 0.0},
]
GOLD = {
    "label": "yes",
    "category": "c",
    "kind": "own",
    "defect": "d",
    "choice": {"letter": "A", "options": {"A": "x"}},
}
SFT = {
    "model_name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "full",
    "freeze_vision_tower": False,
    "template": "qwen2_vl",
    "dataset_dir": ".",
    "dataset": "own",
    "eval_dataset": "own",
    "image_min_pixels": 3136,
    "image_max_pixels": 401408,
    "cutoff_len": 2048,
    "output_dir": "out",
    "save_strategy": "no",
    "resume_from_checkpoint": "out",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "deepspeed": "ds.json",
}
DEEPSPEED = {"zero_optimization": {"stage": 3}, "gradient_accumulation_steps": "auto"}
TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
DATASETS = {
    "own": {
        "file_name": "own.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": TAGS,
    }
}
TURNS = [{"role": "user", "content": "Sound?"}, {"role": "assistant", "content": "Yes."}]
ROWS = [{"messages": TURNS, "images": []}]
PARTS = {"overall": 1.0, "accuracy": 1.0, "tp_gear": 0.5, "fp_gear": 0.25, "fn_gear": 0.25}
EASYR1_LOG = {"step": 1, "reward": PARTS, "val": {"accuracy_reward": 1.0}, "actor": {"entropy": 0.5}}
VERL_LOG = {"step": 1, "data": {"critic/score/mean": 0.5, "actor/entropy": 0.5}}
REWARD_LOG = {"step": 1, "split": "train", "sums": PARTS, "counts": dict.fromkeys(PARTS, 4)}
ALTERNATIVES = [{"token": "yes", "logprob": -0.1}, {"token": "no", "logprob": -2.0}]
TOKENS = [{"token": "<answer>", "top_logprobs": []}, {"token": "yes", "top_logprobs": ALTERNATIVES}]
MESSAGE = {"role": "assistant", "content": "<think> a </think><answer>yes</answer>"}
CHOICE = {"message": MESSAGE, "finish_reason": "stop", "logprobs": {"content": TOKENS}}
REPLY = json.dumps({"choices": [CHOICE], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}).encode()
ASKED = {"detection": "Is there a defect in the nut?", "description": "What does the nut look like now?"}
SAID = "No, the surface of the nut is even and clean."
WRITTEN = json.dumps({"pairs": [{"topic": t, "question": q, "answer": SAID + t} for t, q in ASKED.items()]}).encode()
STAGE = {"name": "build", "title": "build pairs", "seconds": 1.5, "peak_bytes": 9, "commands": [["lad", "build"]]}
CONFIG = {
    "model_type": "qwen2_5_vl",
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "tie_word_embeddings": True,
    "vision_config": {"depth": 2},
    "text_config": {"num_hidden_layers": 1, "rope_parameters": {"rope_theta": 1e6, "mrope_section": [1, 2]}},
}
PROCESSOR = {"image_processor": {"size": {"longest_edge": 9, "shortest_edge": 4}}, "processor_class": "P"}
TOKENIZER = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<a>"], "chat_template": "x"}
WEIGHTS = save({"model.embed_tokens.weight": np.zeros((2, 2), np.float32)})
INDEX = {"metadata": {"total_size": 16}, "weight_map": {"model.embed_tokens.weight": "model.safetensors"}}
RECIPES = Path(recipe.__file__).parent
GRPO = Path(__file__).parents[2] / "examples" / "grpo"


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def quiet() -> Findings:
    return Findings(quiet=True)


def read_store(folder: Path) -> None:
    from lad_datasets.annotate.store import RunCard

    with Store(folder, RunCard(**STORE), quiet()):
        pass


def read_curves(folder: Path) -> None:
    for run in read_runs([str(folder)]):
        last_values(run)


def read_words(text: str) -> None:
    read_letter(text, {"A": "Yes.", "B": "No."})
    assert parse(text).answer == read_outcome(text).answer
    combined_reward(parse(text), json.dumps(GOLD))


def read_csv(folder: Path) -> None:
    for threshold in (0.5, "f1-max:good", "quantile:0.9:good", None):
        read_external("own", folder / "x.csv", folder / "pairs.parquet", "all", threshold=threshold)


def pairs() -> bytes:
    photograph = image(b"", "gear/good/0.png")
    own = [
        make_pair("gear", kind, [photograph], image(kind.encode(), f"gear/{kind}/1.png"), defect=kind)
        for kind in ("good", "own")
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([pair.to_row() for pair in own], schema=pair_schema()), stream)
    return stream.getvalue()


def check(name: str) -> Callable[[Path], object]:
    return lambda folder: check_file(folder / name, CheckOptions())


def text_of(folder: Path) -> str:
    return (folder / "x").read_bytes().decode("utf-8", "surrogateescape")


def read_server_reply(folder: Path) -> None:
    server = ChatServer("http://x/v1", api_key="", timeout=1, tries=1)
    reply = read_reply((folder / "x").read_bytes(), server.redact)
    score_reply(reply.text, reply)


def read_written_pairs(folder: Path) -> None:
    subject = Subject(
        id="a",
        image=Path("a.png"),
        dataset="own",
        category="nut",
        defect="good",
        kind="good",
        mask=None,
    )
    parse_reply(text_of(folder), subject)


def read_stage(folder: Path) -> None:
    record = read_record(
        folder, Stage("build", "build", [["lad", "build"]], folder, Progress("rows", 1, lambda: 0), 1.0)
    )
    if record is not None:
        assert len(f"{record.seconds:.0f} s, {record.peak_bytes / 2**30:.1f} GiB") < 400


Files = dict[str, bytes]
Reader = Callable[[Path], object]
MODEL: Final[Files] = {
    "config.json": lines(CONFIG),
    "processor_config.json": lines(PROCESSOR),
    "tokenizer_config.json": lines(TOKENIZER),
    "generation_config.json": b"{}",
    "model.safetensors.index.json": lines(INDEX),
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
}
TRAINING: Final[Files] = {
    "sft.yaml": yaml.safe_dump(SFT).encode(),
    "dataset_info.json": lines(DATASETS),
    "own.json": lines(ROWS),
    "ds.json": lines(DEEPSPEED),
}
VISA = {
    "split_csv/1cls.csv": b"object,split,label,image,mask\ncandle,train,normal,candle/Data/Images/Normal/0.JPG,\n",
    "candle/image_anno.csv": b"image,label,mask\ncandle/Data/Images/Normal/0.JPG,normal,\n",
    "candle/Data/Images/Normal/0.JPG": b"",
}
LOCO = {
    "pushpins/defects_config.json": lines([{"defect_name": "bent", "pixel_value": 251}]),
    "pushpins/test/logical_anomalies/0.png": tiny_png(),
    "pushpins/ground_truth/logical_anomalies/0/0.png": tiny_mask(251),
}
#: By reader: the files, of which those that come first are changed, how many these are, and the function.
READERS: Final[dict[str, tuple[Files, int, Reader]]] = {
    "predictions": (
        {"x.jsonl": lines(PREDICTION, PREDICTION | {"sample": 1})},
        1,
        lambda f: read_predictions(f / "x.jsonl"),
    ),
    "run card": ({"x.run.json": lines({"data": "x", "model": {}})}, 1, lambda f: read_run_card(f / "x.jsonl")),
    "annotations": (
        {"annotations.jsonl": lines(ANNOTATION), "decisions.jsonl": lines(DECISION)},
        2,
        lambda f: read_annotations(f, quiet()),
    ),
    "lad check of annotations": ({"annotations.jsonl": lines(ANNOTATION)}, 1, check("annotations.jsonl")),
    "reviews": (
        {"d.jsonl": lines(DECISION), "annotations.jsonl": lines(ANNOTATION)},
        2,
        lambda f: read_rates(f, [f / "d.jsonl"]),
    ),
    "subjects": ({"x": lines(SUBJECT)}, 1, lambda f: read_subjects(f / "x")),
    "replies of an endpoint": ({"records.jsonl": lines(*REPLIES)}, 1, read_store),
    "summary of annotations": ({"x": lines({"counts": {"failed": 2}})}, 1, lambda f: read_counts(f / "x")),
    "MMAD": (
        {"mmad.json": lines(MMAD), "domain_knowledge.json": lines({"a": {"b": {"c": "d"}}})},
        2,
        lambda f: mmad.read(f, quiet()),
    ),
    "MMAD's questions": ({"mmad.json": lines(MMAD)}, 1, lambda f: mmad.read_questions(f, quiet())),
    "recipe": ({"x.yaml": (RECIPES / "paper.yaml").read_bytes()}, 1, lambda f: recipe.read_recipe(str(f / "x.yaml"))),
    "VisA": (VISA, 2, visa.scan),
    "MVTec LOCO AD": (LOCO, 1, mvtec_loco.scan),
    "external CSV": (
        {"x.csv": b"path,score,text\ngear/good/1.png,0.1,\ngear/own/1.png,0.9,\n", "pairs.parquet": pairs()},
        1,
        read_csv,
    ),
    "synthetic tree": (
        {"synthetic.json": b'{"dataset": "synthetic_loco"}'},
        1,
        lambda f: read_marker(f, dataset="mvtec_loco", licence=mvtec_loco.CC_BY_NC_SA_4),
    ),
    "EasyR1 YAML": (
        {"x.yaml": (GRPO / "qwen2_5_vl_3b_loco.yaml").read_bytes()},
        1,
        lambda f: load_config([f"config={f / 'x.yaml'}"]),
    ),
    "EasyR1 script": (
        {"x.sh": (GRPO / "qwen2_5_vl_3b_rloo.sh").read_bytes()},
        1,
        lambda f: load_config([f"config={f / 'x.sh'}"]),
    ),
    "LLaMA-Factory": (TRAINING, 4, lambda f: check_sft(f / "sft.yaml")),
    "model folder": (MODEL, 6, check("")),
    "tokenizer": (
        {"tokenizer.json": b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}'},
        1,
        read_tokenizer,
    ),
    "training logs": (
        {"experiment_log.jsonl": lines(EASYR1_LOG), "verl.jsonl": lines(VERL_LOG), "rewards.jsonl": lines(REWARD_LOG)},
        3,
        read_metrics,
    ),
    "training curves": (
        {"verl.jsonl": lines(VERL_LOG), "rewards.jsonl": lines(REWARD_LOG), "experiment_log.jsonl": lines(EASYR1_LOG)},
        3,
        read_curves,
    ),
    "reply of a server": ({"x": REPLY}, 1, read_server_reply),
    "questions and answers of a model": ({"x": WRITTEN}, 1, read_written_pairs),
    "stage of the demonstration": ({"stages/build.json": lines(STAGE)}, 1, read_stage),
    "format prompt": (
        {"x.jinja": b"{% if content %}{{ content | trim }}{% endif %} First think, then answer yes or no."},
        1,
        lambda f: prompt_text("<image><image>Well?", read_format_prompt(f / "x.jinja")),
    ),
    "response": (
        {"x": b"<think> A pin is missing. </think><answer> yes </answer>"},
        1,
        lambda f: read_words(text_of(f)),
    ),
    "gold answer": ({"x": json.dumps(GOLD).encode()}, 1, lambda f: read_gold(text_of(f))),
}
#: What its documentation promises besides LadError.
ALSO: Final[dict[str, Any]] = {
    "gold answer": (ValueError,),
    "reply of a server": (NoReplyError,),
    "questions and answers of a model": (InvalidReplyError, RefusalError),
}
#: Resolving a training config takes tens of milliseconds, reading another file less than one.
EXAMPLES: Final = {"EasyR1 YAML": 30, "EasyR1 script": 30}
COUNTS: Final[Counter[tuple[str, str]]] = Counter()


@pytest.fixture(scope="module", autouse=True)
def report(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print how many inputs each reader has had."""
    yield
    plugins = request.config.pluginmanager
    terminal, capture = (plugins.getplugin(name) for name in ("terminalreporter", "capturemanager"))
    with capture.global_and_fixture_disabled():
        for name in dict.fromkeys(name for name, _ in COUNTS):
            read, refused = COUNTS[name, "read"], COUNTS[name, "refused"]
            terminal.write_line(f"\n{name}: {read + refused} inputs, {read} read, {refused} refused")


def written(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def require_readable(message: str) -> None:
    assert message
    assert message == visible(message, one_line=True)


@pytest.mark.parametrize("name", READERS)
def test_a_valid_file_is_read(name, tmp_path, monkeypatch) -> None:
    if name == "tokenizer":
        pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    files, _, read = READERS[name]
    monkeypatch.chdir(written(tmp_path, files))
    read(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_read_or_refused_in_one_sentence(name, tmp_path, monkeypatch) -> None:
    files, changeable, read = READERS[name]
    names = list(files)
    monkeypatch.chdir(written(tmp_path, files))

    @settings(
        max_examples=EXAMPLES.get(name, 200),
        suppress_health_check=[HealthCheck.too_slow],
        phases=[Phase.generate],
        database=None,
    )
    @given(st.integers(0, changeable - 1), EDITS, st.integers(0, 1 << 20), st.sampled_from(VALUES), st.booleans())
    def fuzz(which, edits, place, value, by_value) -> None:
        path = tmp_path / names[which]
        data = files[names[which]]
        path.write_bytes(altered(data, place, value) if by_value else edited(data, edits))
        try:
            read(tmp_path)
            COUNTS[name, "read"] += 1
        except (LadError, *ALSO.get(name, ())) as error:
            COUNTS[name, "refused"] += 1
            if isinstance(error, LadError):
                require_readable(str(error))
            assert str(error)
        finally:
            path.write_bytes(files[names[which]])

    fuzz()


OPTION = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)


@settings(max_examples=600)
@given(st.dictionaries(st.sampled_from([*OptionalRewards.__dataclass_fields__, "accuracy_weight", "x"]), OPTION))
def test_reward_options_are_read_or_refused_in_one_sentence(options) -> None:
    try:
        read_options(options)
        COUNTS["reward options", "read"] += 1
    except OptionError as error:
        COUNTS["reward options", "refused"] += 1
        require_readable(str(error))
