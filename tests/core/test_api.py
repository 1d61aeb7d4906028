"""The public API: which names there are, what importing costs, and that the command line has the same defaults."""

from __future__ import annotations

import importlib
import inspect
import math
import subprocess
import sys
import types
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import typer

import lad_datasets
import lad_reasoner
from lad_reasoner import api
from lad_reasoner.commands.lad import build_app
from lad_reasoner.inference.backends.structured import default_tokens
from lad_reasoner.inference.protocol import BackendOptions
from lad_reasoner.support.errors import UsageError

#: The contract: a name leaves or joins it only with a CHANGELOG line.
NAMES = {
    "lad_reasoner": {
        *("Answer", "Backend", "BackendOptions", "Comparison", "DataError", "Finding", "Image", "LadError", "Pair"),
        *("PairRecord", "PredictSummary", "Prediction", "Question", "Report", "Response", "ResponseScore", "RunError"),
        *("RunScore", "Truth", "UsageError", "Verdict", "__version__", "ask", "check_config", "compare", "iter_pairs"),
        *(
            "load_backend",
            "parse",
            "predict",
            "problem_text",
            "prompt_text",
            "read_predictions",
            "read_truths",
            "score",
        ),
        *("score_response", "score_responses", "select", "write_report"),
    },
    "lad_datasets": {
        *("Build", "CheckOptions", "Encoding", "Options", "CheckReport", "build_grpo", "build_loco", "build_mmad"),
        *("build_sft", "check"),
    },
}


@pytest.mark.parametrize("package", [lad_reasoner, lad_datasets], ids=lambda package: package.__name__)
def test_the_exported_names_are_pinned_and_exist(package: types.ModuleType) -> None:
    assert set(package.__all__) == set(dir(package)) == NAMES[package.__name__]
    for name in package.__all__:
        value = getattr(package, name)
        assert value is getattr(package, name)
        assert value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        package.absent  # noqa: B018


def test_a_name_is_the_same_object_as_in_its_module() -> None:
    assert lad_reasoner.parse is importlib.import_module("lad_reasoner.task.response").parse
    assert lad_reasoner.score is api.score


HEAVY = ("torch", "transformers", "pyarrow", "pandas", "numpy", "PIL", "pydantic", "typer", "rich", "jinja2")


@pytest.mark.parametrize(
    "statement",
    [
        "import lad_reasoner, lad_datasets",
        "import lad_reasoner; lad_reasoner.score_response('<answer>no</answer>', 'no')",
        "import lad_datasets; lad_datasets.build_grpo",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(loaded) & {"torch", "transformers", "pyarrow", "pandas"}
    if "build_grpo" not in statement:
        assert loaded == []


def _parameters(function: object) -> dict[str, object]:
    signature = inspect.signature(function)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def _command_defaults(*words: str) -> dict[str, object]:
    command = typer.main.get_command(build_app())
    for word in words:
        command = command.commands[word]
    return {parameter.name: parameter.default for parameter in command.params}


def _field_defaults(kind: type) -> dict[str, object]:
    assert is_dataclass(kind)
    return {field.name: field.default for field in fields(kind)}


BOOTSTRAP = {"resamples", "seed", "protocol"}
SAME = [
    (["score"], api.score, BOOTSTRAP),
    (["compare"], api.compare, BOOTSTRAP),
    (["predict"], api.predict, {"samples", "limit"}),
    (
        ("report",),
        api.write_report,
        {"title", "limit", "single_file", "picture_edge"} | BOOTSTRAP,
    ),
    (["build", "sft"], lad_datasets.build_sft, {"rows", "val_fraction", "seed", "skip_bad", "overwrite"}),
    (["build", "loco"], lad_datasets.build_loco, {"subset", "limit"}),
    (["build", "grpo"], lad_datasets.build_grpo, {"recipe", "limit", "balance", "val_fraction"}),
    (["build", "mmad"], lad_datasets.build_mmad, {"limit"}),
]


@pytest.mark.parametrize(
    ("words", "function", "names"), SAME, ids=lambda value: "-".join(value) if type(value) is tuple else ""
)
def test_the_command_line_has_the_functions_defaults(words, function, names) -> None:
    command, own = _command_defaults(*words), _parameters(function)
    assert names <= set(own)
    assert {name: command[name] for name in names} == {name: own[name] for name in names}


@pytest.mark.parametrize(("words", "kind"), [(("predict",), "BackendOptions"), (("build", "grpo"), "Options")])
def test_the_command_line_has_the_options_defaults(words, kind) -> None:
    options = getattr(lad_reasoner if kind == "BackendOptions" else lad_datasets, kind)
    command, own = _command_defaults(*words), _field_defaults(options)
    shared = set(command) & set(own) - {"model", "image_root", "workers", "temperature", "max_new_tokens"}
    assert len(shared) >= 5
    assert {name: command[name] for name in shared} == {name: own[name] for name in shared}


def test_the_command_line_has_the_options_default_length() -> None:
    """The command has no number of its own: its default depends on --structured."""
    assert _command_defaults("predict")["max_new_tokens"] is None
    assert default_tokens(structured=False) == _field_defaults(lad_reasoner.BackendOptions)["max_new_tokens"]


def test_responses_of_another_program_are_scored_as_a_file_is() -> None:
    facts = {"dataset": "d", "category": "c", "defect": "x"}
    truths = [
        lad_reasoner.Truth(pair_id=f"p{index}", label=label, kind=kind, query_path=f"{index}.png", **facts)
        for index, (label, kind) in enumerate([("yes", "logical"), ("no", "good"), ("yes", "structural")])
    ]
    texts = ["<think> a </think><answer> yes </answer>", "no tags", "<think> b </think><answer> yes </answer>"]
    run = lad_reasoner.score_responses(zip(truths, texts, strict=True), resamples=10)
    assert (run.pooled.pairs, run.pooled.unparsed, run.pooled.template_rate) == (2, 1, 0.5)
    assert run.pooled.metrics["accuracy"].value == 0.5
    every = lad_reasoner.score_responses(zip(truths, texts, strict=True), protocol="all", resamples=10)
    assert every.pooled.pairs == 3
    twice = [(truths[1], texts[1]), (truths[0], texts[0]), (truths[1], "<think> c </think><answer> no </answer>")]
    sampled = lad_reasoner.score_responses(twice, resamples=10)
    assert (sampled.pooled.pairs, sampled.pooled.replies, sampled.samples) == (2, 3, 2)


def test_a_config_is_checked_without_a_command_line(repository: Path, tmp_path: Path) -> None:
    config = repository / "examples/grpo/qwen2_5_vl_3b_loco.yaml"
    absent = f"data.train_files={tmp_path}/absent.parquet"
    findings = lad_reasoner.check_config(str(config), absent)
    assert any(finding.is_error and "data.train_files" in finding.where for finding in findings)
    with pytest.raises(lad_reasoner.UsageError, match="no_such_key"):
        lad_reasoner.check_config(config, "data.no_such_key=1")


TRUTH = lad_reasoner.Truth("a", "folder", "gear", "yes", "own", "dent", "a.png")

MISUSES = [
    (lambda: api.compare("a.jsonl"), TypeError, r"must be a list of files; give \['a.jsonl'\]"),
    (lambda: api.write_report("a.jsonl", "out"), TypeError, "must be a list of files"),
    (lambda: api.write_report([], "out"), UsageError, "the list of files of predictions is empty"),
    (lambda: api.compare([]), UsageError, "the list of files of predictions is empty"),
    (lambda: api.predict("x.parquet", "model", "out.jsonl"), TypeError, "of type str; load one with load_backend"),
    (lambda: api.ask(None, "a.png", "b.png"), TypeError, "of type NoneType; load one with load_backend"),
    (lambda: api.load_backend("m", "tgi"), UsageError, "there is no backend 'tgi'. Use transformers, openai, vllm"),
    (lambda: api.load_backend(3), TypeError, "of type int, not BackendOptions or the name of a model"),
    (lambda: api.score(3), TypeError, "not '?int"),
    (lambda: api.score_responses([], protocol="papr"), UsageError, "'papr' is not a protocol. Use paper or all"),
    (lambda: BackendOptions(model="m", temperature=math.inf), UsageError, "--temperature: inf is not a number of"),
    (lambda: BackendOptions(model="m", temperature=math.nan), UsageError, "--temperature: nan is not a number of"),
    (
        lambda: BackendOptions(model="m", max_new_tokens=0),
        UsageError,
        "--max-new-tokens: 0 is not a number of at least 1",
    ),
    (lambda: BackendOptions(model="m", min_pixels=10**12), UsageError, "--min-pixels: 1000000000000 is more than"),
    (lambda: BackendOptions(model="m", max_pixels=-5), UsageError, "--max-pixels: -5 is not a number of at least 1"),
    (lambda: BackendOptions(model="m", timeout=math.inf), UsageError, "--timeout: inf is not a number of at least 1"),
    (lambda: BackendOptions(model="m").sampling(9000, 4000), UsageError, "enlarged to 9000 pixels and shrunk to 4000"),
    (
        lambda: api.score_responses([(TRUTH, "x")], resamples=-1),
        UsageError,
        "--resamples: -1 is not a number of at least 0",
    ),
    (lambda: lad_reasoner.parse(None), TypeError, "a response is text, not NoneType"),
    (lambda: lad_reasoner.parse(b"x"), TypeError, "a response is text, not bytes"),
    (lambda: api.score_response(None, "yes"), TypeError, "a response is text, not NoneType"),
]


@pytest.mark.parametrize(("call", "kind", "words"), MISUSES)
def test_misuse_is_named(call, kind, words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=words):
        call()
    assert not list(tmp_path.iterdir())
