"""One reader for both trainers' logs, across attempts and cut lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lad_reasoner.training.metrics import attempts_of, read_log, read_metrics
from lad_reasoner.training.run.follow import RunProgress, describe_step


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def verl_row(step, reward=0.5, **data):
    return {"step": step, "data": {"critic/score/mean": reward, "response_length/mean": 20.0, **data}}


def reward_row(step, overall, count=4, split="train", **parts):
    sums = {"overall": overall, **parts}
    return {"step": step, "split": split, "rows": count, "sums": sums, "counts": dict.fromkeys(sums, count)}


def test_easyr1s_nested_log(tmp_path):
    write(
        tmp_path / "experiment_log.jsonl",
        {"step": 0, "val": {"overall_reward": 0.2, "accuracy_pushpins_reward": 0.3, "reward_score": 0.2}},
        {
            "step": 1,
            "reward": {"overall": 0.6, "structure": 0.9, "accuracy": 0.3, "tp": 0.2, "fp": 0.1, "fn": 0.3},
            "response_length": {"mean": 80.0, "max": 100.0},
            "actor": {"kl_penalty": 0.01, "ppo_kl": 0.5},
            "critic": {"score": {"mean": 0.6}},
            "perf": {"time_per_step": 12.0},
        },
    )
    before, first = read_metrics(tmp_path)
    assert before == {"step": 0.0, "val/reward": 0.2, "val/accuracy_pushpins": 0.3}
    assert first["f1"] == pytest.approx(0.4 / 0.8)
    assert {key: first[key] for key in ("step", "reward", "structure", "kl", "response_length", "seconds")} == {
        "step": 1.0,
        "reward": 0.6,
        "structure": 0.9,
        "kl": 0.01,
        "response_length": 80.0,
        "seconds": 12.0,
    }


def test_verls_log_gets_the_parts_of_the_reward_from_the_samplers(tmp_path):
    attempt = tmp_path / "attempts" / "001"
    write(attempt / "verl.jsonl", verl_row(1, **{"actor/kl_loss": 0.02, "val-aux/x/accuracy/mean@1": 0.9}))
    write(
        attempt / "rewards.jsonl",
        reward_row(1, 2.0, structure=4.0, accuracy=1.0),
        reward_row(1, 3.0, 3, split="val", accuracy_pushpins=3.0),
        reward_row(1, 1.0, 5, split="val", accuracy_pushpins=1.0),
        reward_row(2, 4.0),
    )
    (row,) = read_metrics(tmp_path)
    assert row["structure"] == 1.0
    assert row["accuracy"] == 0.25
    assert row["kl"] == 0.02
    assert row["val/accuracy_pushpins"] == 0.5  # both batches of the validation set, by their sizes


def test_steps_that_a_later_attempt_trained_again_are_the_later_ones(tmp_path):
    write(tmp_path / "attempts" / "001" / "verl.jsonl", *[verl_row(step, 0.1) for step in (1, 2, 3, 4)])
    write(tmp_path / "attempts" / "002" / "verl.jsonl", {"step": 2, "data": {}}, verl_row(3, 0.9))
    assert [(row["step"], row["reward"]) for row in read_metrics(tmp_path)] == [(1, 0.1), (2, 0.1), (3, 0.9)]
    assert [path.name for path in attempts_of(tmp_path)] == ["001", "002"]


def test_a_line_cut_by_a_kill_is_left_out(tmp_path):
    write(tmp_path / "verl.jsonl", verl_row(1))
    with (tmp_path / "verl.jsonl").open("a") as log:
        log.write('{"step": 2, "da')
    assert len(read_log(tmp_path)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["experiment_log.jsonl", "verl.jsonl"]),
    st.lists(st.one_of(st.binary(max_size=20), JSON.map(lambda value: json.dumps(value).encode())), max_size=4),
    JSON,
)
def test_whatever_stands_in_a_log_stops_nobody(tmp_path, name, lines, value):
    own = {"step": 1, "data": {"critic/score/mean": 0.5}, "critic": {"score": {"mean": 0.5}}}
    odd = [own | {"step": value}, own | {"data": value}, own | {"critic": value}, own | {"step": 10**400}]
    log = b"\n".join([*lines, *(json.dumps(row).encode() for row in [*odd, own])]) + b"\n"
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / name).write_bytes(log)
    assert 0.5 in [row.get("reward") for row in read_metrics(tmp_path) if row["step"] == 1]


def test_f1_is_absent_where_nothing_is_or_is_said_positive(tmp_path):
    write(tmp_path / "experiment_log.jsonl", {"step": 1, "reward": {"tp": 0.0, "fp": 0.0, "fn": 0.0, "overall": 1.0}})
    assert "f1" not in read_metrics(tmp_path)[0]


def test_f1_by_category_and_in_validation(tmp_path):
    parts = {"tp_pushpins_reward": 0.5, "fp_pushpins_reward": 0.25, "fn_pushpins_reward": 0.25}
    write(tmp_path / "experiment_log.jsonl", {"step": 1, "val": parts})
    assert read_metrics(tmp_path)[0]["val/f1_pushpins"] == pytest.approx(2 / 3)


def test_no_run_has_no_metrics(tmp_path):
    assert read_metrics(tmp_path / "nothing") == []


def test_the_line_shows_what_there_is():
    row = {"step": 12.0, "reward": 0.51234, "structure": 0.98, "accuracy": 0.4, "kl": 0.01234, "response_length": 81.4}
    assert describe_step(row, 50) == "step 12/50  reward 0.512  structure 0.98  accuracy 0.40  length 81  KL 0.0123"
    assert describe_step({"step": 1.0}, None) == "step 1"


def test_a_line_a_step_with_everything_and_the_remaining_time(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 10.0, 40.0, 70.0])
    monkeypatch.setattr("lad_reasoner.training.run.follow.time.monotonic", lambda: next(clock))
    data = {"response_length/mean": 81.4, "actor/reward_kl_penalty": 0.0123, "critic/score/mean": 0.5}
    rows = [{"step": step, "data": data} for step in (1, 2)]
    parts = [reward_row(step, 2.0, structure=4.0, accuracy=1.0) for step in (1, 2)]
    with RunProgress(tmp_path, total=10) as progress:
        for shown in (1, 2):
            write(tmp_path / "verl.jsonl", *rows[:shown])
            write(tmp_path / "rewards.jsonl", *parts[:shown])
            progress.update()
    values = "reward 0.500  structure 1.00  accuracy 0.25  length 81  KL 0.0123"
    # The second step came 30 s after the first, and 8 are left.
    assert capsys.readouterr().err.splitlines() == [f"step 1/10  {values}", f"step 2/10  {values}  ETA 4:00"]


def test_both_trainers_diagnostics_have_one_name(tmp_path):
    easyr1 = {"entropy_loss": 0.4, "pg_clipfrac_higher": 0.01, "pg_clipfrac_lower": 0.5, "grad_norm": 2.0}
    write(tmp_path / "a" / "experiment_log.jsonl", {"step": 1, "actor": easyr1, "reward": {"unanimous_right": 0.25}})
    names = {"actor/entropy": 0.4, "actor/pg_clipfrac": 0.01, "actor/grad_norm": 2.0}
    write(tmp_path / "b" / "verl.jsonl", verl_row(1, **names))
    write(tmp_path / "b" / "rewards.jsonl", reward_row(1, 2.0, unanimous_right=1.0))
    for folder in ("a", "b"):
        (row,) = read_metrics(tmp_path / folder)
        found = {name: row[name] for name in ("entropy", "clip_share", "grad_norm", "unanimous_right")}
        assert found == {"entropy": 0.4, "clip_share": 0.01, "grad_norm": 2.0, "unanimous_right": 0.25}


def test_unanimous_groups_are_part_of_the_line_where_they_are_most():
    row = {"step": 1.0, "unanimous_right": 0.3, "unanimous_wrong": 0.3}
    assert describe_step(row, 2) == "step 1/2  unanimous 60%"
    assert describe_step({**row, "unanimous_wrong": 0.1}, 2) == "step 1/2"
