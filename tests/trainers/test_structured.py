"""Rollouts held to the answer template: `--structured` reaches verl's sampling, and is refused where nothing can."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.trainers.preflight.kit import EASYR1, KEYS

from lad_reasoner.support.errors import UsageError
from lad_reasoner.task.response import parse, template_regex
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.installed import Trainer
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.preflight.machine import check_structured
from lad_reasoner.training.run.plan import build_command

VERL = Trainer("verl", "0.9.1", Path())
LOOP = "actor_rollout_ref.rollout.agent.default_agent_loop"


def config_of(words, *more, structured=True):
    return load_config([*words, *more], KEYS, structured=structured)


def found(config, trainer, *, gpu):
    return [str(finding) for finding in check_structured(Known(config=config, trainer=trainer, gpu=gpu))]


@pytest.mark.parametrize("structured", [True, False])
def test_only_the_option_replaces_verls_agent_loop(good_words, tmp_path, structured):
    command = build_command(config_of(good_words, structured=structured), VERL, tmp_path, gpu=True)
    assert any(LOOP in word for word in command.words) is structured


def test_verls_vllm_on_a_cpu_takes_it_too(good_words, tmp_path):
    command = build_command(config_of(good_words), VERL, tmp_path, gpu=False, engine="vllm")
    assert any(LOOP in word for word in command.words)


@pytest.mark.parametrize(
    ("trainer", "gpu", "problem"),
    [(EASYR1, True, "none of them constrains decoding"), (VERL, False, "the CPU rollout does not constrain decoding")],
)
def test_what_cannot_constrain_decoding_is_refused(good_words, tmp_path, trainer, gpu, problem):
    with pytest.raises(UsageError, match=problem):
        build_command(config_of(good_words), trainer, tmp_path, gpu=gpu)
    (line,) = found(config_of(good_words), trainer, gpu=gpu)
    assert line.startswith("error: --structured: ")
    assert problem in line


def test_a_response_limit_below_the_template_is_refused(good_words):
    (line,) = found(config_of(good_words, "data.max_response_length=30"), VERL, gpu=True)
    assert line.startswith("error: data.max_response_length: ")
    assert "30 tokens per response leave no room" in line


def test_the_check_notes_that_the_structure_reward_is_constant(good_words):
    (line,) = found(config_of(good_words), VERL, gpu=True)
    assert line.startswith("note: --structured: ")
    assert "the structure reward is always 1" in line
    assert found(config_of(good_words, structured=False), VERL, gpu=True) == []


def test_answers_other_than_yes_and_no_are_refused(good_words, workshop, tmp_path):
    rows = pq.read_table(workshop / "train.parquet").to_pylist()
    gold = json.loads(rows[0]["answer"]) | {"answers": "classes"}
    rows[0]["answer"] = json.dumps(gold)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "classes.parquet")
    first, _ = found(config_of(good_words, f"data.train_files={tmp_path}/classes.parquet"), VERL, gpu=True)
    assert first.startswith("error: data.train_files: --structured admits only")


def test_copies_of_a_config_keep_the_option(good_words):
    assert config_of(good_words).replace(trainer__max_steps=3).structured is True


@pytest.mark.frameworks
def test_verls_server_gets_the_templates_expression(monkeypatch):
    pytest.importorskip("vllm")
    pytest.importorskip("verl")
    from hydra.utils import get_class
    from omegaconf import OmegaConf
    from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
    from vllm import SamplingParams

    from lad_reasoner.training.verl.structured import structured_overrides

    name, path = structured_overrides().values()
    (entry,) = OmegaConf.load(path)  # as verl's worker reads it
    assert entry.name == name

    async def run(_loop, sampling_params, **kwargs):
        return sampling_params, kwargs

    monkeypatch.setattr(SingleTurnAgentLoop, "run", run)
    loop_class = get_class(entry._target_)
    loop = object.__new__(loop_class)  # its constructor needs a server
    loop.response_length = 64
    asked = {"temperature": 0.7, "logprobs": 0}
    given, kwargs = asyncio.run(loop.run(asked, row=1))
    assert kwargs == {"row": 1}
    assert "structured_outputs" not in asked
    regex = SamplingParams(max_tokens=64, **given).structured_outputs.regex
    assert regex == template_regex(64)
    assert re.fullmatch(regex, "<think> one pin is missing </think><answer> yes </answer>")
    assert not re.fullmatch(regex, "yes")


@pytest.mark.parametrize("limit", [40, 64, 1024])
def test_what_the_expression_admits_is_well_formed(limit):
    longest = "<think> " + "x" * (limit - 40 + 1) + "</think><answer> yes </answer>"
    assert re.fullmatch(template_regex(limit), longest)
    assert len(longest) < limit
    assert parse(longest).well_formed
