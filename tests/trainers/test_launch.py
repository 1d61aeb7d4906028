"""The launcher: what a trainer is started with, what its failure says, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lad_reasoner.commands.easyr1 import main
from lad_reasoner.support.errors import RunError, UsageError
from lad_reasoner.support.files import locked
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.installed import Trainer
from lad_reasoner.training.run import plan, start
from lad_reasoner.training.run.checkpoints import remove_old, step_of
from lad_reasoner.training.run.failures import last_error
from lad_reasoner.training.run.follow import follow

VERL, EASYR1 = Trainer("verl", "0.9.1", Path()), Trainer("easyr1", "0.3.3.dev0", Path())


#: As Ray 2.60 writes them.
DIED = """ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
\tclass_name: create_colocated_worker_cls.<locals>.WorkerDict
\tactor_id: 9e1904642b40e0b8723fb96e04000000
\tpid: 22852
\tname: uInReMWorkerDict_1:0
\tnamespace: c987b11f
\tip: 10.0.0.3
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR
"""
KILLED = (
    "\x1b[33m(raylet)\x1b[0m A worker died or was killed while executing a task by an unexpected system error. "
    "Worker ID: 3ff3 Node ID: 350f Worker IP address: 10.0.0.3 Worker port: 38031 Worker PID: 22852 Worker exit type\n"
)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("a\nValueError: bad batch\nafterwards\n", "ValueError: bad batch"),
        ("KeyError: 'x'\nray.exceptions.RayTaskError(KeyError): ray::run()\n", "KeyError: 'x'"),
        (
            "\x1b[36m(TaskRunnerV1 pid=12)\x1b[0m torch.OutOfMemoryError: CUDA out of memory\n",
            "torch.OutOfMemoryError",
        ),
        ("only words\nthe last of them\n", "the last of them"),
        ("", "nothing in the log"),
        ("ray.exceptions.ActorDiedError: The actor died\n", "ray.exceptions.ActorDiedError"),
        (
            "Error executing job with overrides: ['a=1']\nray.exceptions.RayTaskError(ActorDiedError): ray::run()\n"
            + DIED,
            "WorkerDict, process 22852 on node 10.0.0.3, died: killed, or out of memory",
        ),
        (
            "RuntimeError: Connection closed by peer [10.0.0.3]:5\n" + KILLED,
            "a worker, process 22852 on node 10.0.0.3",
        ),
        ("ValueError: bad batch\n" + KILLED, "ValueError: bad batch"),
        (
            (
                "shut down: 1 worker(s) were killed due to the node running low on memory. Memory was 21.60GB\n"
                "Top 10 memory users: PID\tMEM(GB)\tCOMMAND\n10161\t16.70\tother --option\n"
                "Error executing job with overrides: ['a=1']\n"
            ),
            "memory was nearly full; process 10161 held most, 16.7 GB",
        ),
        ("what it said\nError executing job with overrides: ['a=1']\n", "what it said"),
        (
            "ray.exceptions.ActorUnavailableError: The actor 7f37 is unavailable: RpcError: Socket closed\n",
            "a worker cannot be reached any more: it or its node died",
        ),
        ("ray.exceptions.ActorUnavailableError: The actor 7f37 is unavailable\n" + KILLED, "process 22852 on node"),
    ],
)
def test_the_line_that_says_why(tmp_path, log, said):
    (tmp_path / "trainer.log").write_text(log)
    assert said in last_error(tmp_path / "trainer.log")


def test_easyr1_is_given_its_own_grammar(good_words, tmp_path):
    command = plan.build_command(load_config(good_words), EASYR1, tmp_path, gpu=True)
    assert command.words[1:] == ["-m", "verl.trainer.main", f"config={tmp_path}/easyr1.yaml"]


def test_easyr1_without_a_gpu_is_refused_before_it_starts(good_words, tmp_path):
    with pytest.raises(RunError, match="EasyR1 needs a GPU"):
        plan.build_command(load_config(good_words), EASYR1, tmp_path, gpu=False)


@pytest.mark.parametrize("gpu", [True, False])
def test_verl_runs_on_the_cpu_where_there_is_no_gpu(good_words, tmp_path, gpu):
    command = plan.build_command(load_config(good_words), VERL, tmp_path, gpu=gpu)
    assert command.on_cpu is not gpu
    assert ('trainer.device="cpu"' in command.words) is not gpu
    assert ('actor_rollout_ref.rollout.name="vllm"' in command.words) is gpu
    assert len({word.partition("=")[0].removeprefix("++") for word in command.words}) == len(command.words)


EXAMPLES = sorted(Path(__file__).resolve().parents[2].glob("examples/grpo/qwen*"))


def shown(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["show", *words])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_verls_overrides_are_shown_as_a_script(example, tmp_path, capsys, monkeypatch, repository):
    monkeypatch.chdir(repository)
    words = [f"config={example}", f"trainer.save_checkpoint_path={tmp_path}/run"]
    (tmp_path / "verl.sh").write_text(shown(capsys, *words, "--as", "verl"))
    (tmp_path / "python").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")  # says what it was given
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = ["bash", str(tmp_path / "verl.sh"), "trainer.nnodes=4"]
    said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
    command = plan.build_command(load_config(words), VERL, tmp_path / "run" / "attempts" / "001", gpu=True)
    assert said.split("\0") == [*command.words[1:], "trainer.nnodes=4", ""]


def test_the_config_shown_is_a_config(good_words, tmp_path, capsys):
    (tmp_path / "whole.yaml").write_text(shown(capsys, *good_words, "--as", "easyr1"))
    assert load_config([f"config={tmp_path}/whole.yaml"]).values == load_config(good_words).values


def run(words, log, progress):
    return follow([sys.executable, "-c", *words], dict(os.environ), log, progress)


class Silent:
    def update(self) -> None: ...


def test_the_exit_code_and_the_whole_output_are_kept(tmp_path):
    code = run(["import sys; print('said'); sys.stderr.write('and this'); sys.exit(3)"], tmp_path / "log", Silent())
    assert code == 3
    assert (tmp_path / "log").read_text() == "said\nand this"


@pytest.mark.parametrize(("code", "says"), [(3, "exit code 3"), (-9, "killed by SIGKILL (out of memory?)")])
def test_a_failure_names_the_cause_the_log_and_what_to_do(tmp_path, code, says):
    log = tmp_path / "trainer.log"
    log.write_text("RuntimeError: no room\n")
    error = start.describe_exit(VERL, code, log, tmp_path / "global_step_6")
    assert f"verl: {says}: RuntimeError: no room. See {log}. The same command resumes after step 6." in str(error)
    assert error.exit_code == (3 if code == 3 else 137)
    assert "Nothing was saved yet" in str(start.describe_exit(VERL, code, log, None))


def test_an_interrupt_ends_the_trainer(tmp_path):
    class Interrupting:
        def update(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(["import time; time.sleep(60)"], tmp_path / "log", Interrupting())
    time.sleep(0.2)
    assert not [child for child in psutil.Process().children() if "sleep(60)" in " ".join(child.cmdline())]


def test_easyr1s_log_stays_with_the_attempt_that_wrote_it(tmp_path):
    (tmp_path / "attempts" / "001").mkdir(parents=True)
    (tmp_path / "experiment_log.jsonl").write_text("{}\n")
    start.keep_easyr1_log(tmp_path)
    assert (tmp_path / "attempts" / "001" / "experiment_log.jsonl").is_file()
    assert not (tmp_path / "experiment_log.jsonl").exists()


@pytest.mark.frameworks  # a trainer is looked for before the config is read
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--help"], 0, "easyr1 config=FILE"),
        ([], 0, "Examples:"),
        (["--version"], 0, "lad-reasoner"),
        (["trainer.max_step=1"], 2, "did you mean trainer.max_steps?"),
        (["config=/no/such.yaml"], 2, "no such file"),
        (["check", "--fast"], 2, "No such option: --fast"),
        (["shw", "config=a.yaml"], 2, "Did you mean 'show'?"),
        (["check", "a.yaml"], 2, "error: a.yaml is not of the form key=value"),
        (["show", "data.max_prompt_length=-1"], 2, "data.max_prompt_length: -1 is out of range. Set it to at least 1"),
        (["show", "data.max_response_length=0"], 2, "data.max_response_length: 0 is out of range"),
        (["show", "--as", "trl", "trainer.max_steps=1"], 2, "is not one of 'easyr1', 'verl'"),
        (["check", "trainer.max_steps=0"], 1, "error: trainer.max_steps"),
        (["--no-check", "trainer.max_step=1"], 2, "did you mean trainer.max_steps?"),
        *((["show", "--help"], 0, part) for part in ("--as <easyr1|verl>", "Examples:", "EasyR1's syntax")),
        (["rehearse", "--help"], 0, "--synthetic"),
        (["merge", "--help"], 0, "--dtype"),
    ],
)
def test_the_command_line(words, code, says):
    command = [sys.executable, "-m", "lad_reasoner.commands.easyr1", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == code
    assert says in run.stdout + run.stderr
    assert "Traceback" not in run.stderr


def test_a_refused_key_is_named_in_the_translation(good_words, tmp_path):
    config = load_config([*good_words, "algorithm.online_filtering=true"])
    with pytest.raises(UsageError, match=r"algorithm\.online_filtering: verl has no counterpart to True"):
        plan.build_command(config, VERL, tmp_path, gpu=True)


@pytest.mark.parametrize(
    ("limit", "kept"), [(2, [6, 8, 10]), (1, [8, 10]), (-1, [2, 4, 6, 8, 10]), (9, [2, 4, 6, 8, 10])]
)
def test_the_limit_counts_checkpoints_of_earlier_attempts(tmp_path, limit, kept):
    for step in (2, 4, 6, 8, 10):  # step 10 is being saved
        (tmp_path / f"global_step_{step}" / "actor").mkdir(parents=True)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("8")
    (tmp_path / "attempts").mkdir()
    remove_old(tmp_path, "verl", limit)
    assert sorted(step_of(path) for path in tmp_path.glob("global_step_*")) == kept
    assert (tmp_path / "attempts").is_dir()


def test_old_checkpoints_are_removed_while_the_trainer_runs(tmp_path, good_words):
    run_dir = tmp_path / "run"
    for step in (2, 4, 6):
        (run_dir / f"global_step_{step}").mkdir(parents=True)
    (run_dir / "latest_checkpointed_iteration.txt").write_text("6")
    config = load_config([*good_words, f"trainer.save_checkpoint_path={run_dir}", "trainer.save_limit=1"])
    command = plan.Command([sys.executable, "-c", ""], on_cpu=True)
    attempt = run_dir / "attempts" / "001"
    code = start.run_attempt(command, config, VERL, attempt, lambda _: dict(os.environ), total_steps=1, notes=[])
    assert code == 0
    assert [path.name for path in run_dir.glob("global_step_*")] == ["global_step_6"]


def test_a_second_start_leaves_the_running_training_alone(tmp_path, good_words):
    config = load_config([*good_words, f"trainer.save_checkpoint_path={tmp_path}/run"])
    attempt, rays = config.run_dir / "attempts" / "001", tmp_path / "ray"
    attempt.mkdir(parents=True)
    rays.mkdir()
    (attempt / "attempt.json").write_text(json.dumps({"folder": str(rays)}))
    with locked(config.run_dir), pytest.raises(RunError, match=r"another process .* is writing this output"):
        start.start_training(config, VERL, total_steps=None)
    assert rays.is_dir()
    assert list(config.run_dir.glob("attempts/*/*")) == [attempt / "attempt.json"]
