"""A chain of commands: run, stopped, failed, taken up again."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from lad_reasoner.support.errors import RunError
from lad_rehearsal.demo.memory import PeakMemory, tree_bytes
from lad_rehearsal.demo.stages import Stage, run_stages


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def stage(folder: Path, name: str, code: str | None = None) -> Stage:
    output = folder / f"{name}.txt"
    append = f"open({str(output)!r}, 'a').write('x'); print('wrote', flush=True)"
    return Stage(name=name, title=f"Stage {name}", commands=[python(code or append)], output=output)


def run(stages: list[Stage], folder: Path) -> tuple[list, str]:
    text = io.StringIO()
    return run_stages(stages, folder, Console(file=text, width=200)), text.getvalue()


def test_stages_run_in_order_and_leave_a_log_and_a_record(tmp_path) -> None:
    records, text = run([stage(tmp_path, "a"), stage(tmp_path, "b")], tmp_path)
    assert [record.name for record in records] == ["a", "b"]
    assert all(record.seconds > 0 and record.peak_bytes > 0 for record in records)
    assert (tmp_path / "stages" / "a.log").read_text() == "wrote\n"
    assert text.index("[1/2] Stage a") < text.index("[2/2] Stage b")


def test_a_finished_stage_is_not_run_again(tmp_path) -> None:
    run([stage(tmp_path, "a"), stage(tmp_path, "b")], tmp_path)
    _, text = run([stage(tmp_path, "a"), stage(tmp_path, "b")], tmp_path)
    assert text.count("already done") == 2
    assert (tmp_path / "a.txt").read_text() == "x"


@pytest.mark.parametrize("lost", ["output", "record", "broken record", "other command"])
def test_what_is_not_done_runs_again_with_all_that_follows(tmp_path, lost) -> None:
    first = stage(tmp_path, "a")
    run([first, stage(tmp_path, "b")], tmp_path)
    record = tmp_path / "stages" / "a.json"
    if lost == "output":
        first.output.write_text("")
        first.output.unlink()
    elif lost == "record":
        record.unlink()
    elif lost == "broken record":
        record.write_text(record.read_text()[:20])
    else:
        record.write_text(json.dumps({**json.loads(record.read_text()), "commands": [["true"]]}))
    _, text = run([first, stage(tmp_path, "b")], tmp_path)
    assert "already done" not in text
    assert (tmp_path / "b.txt").read_text() == "xx"


def test_a_failing_stage_names_itself_its_last_line_and_its_log(tmp_path) -> None:
    bad = stage(tmp_path, "bad", "import sys; print('half\\rcannot open the box'); sys.exit(3)")
    with pytest.raises(RunError) as caught:
        run([stage(tmp_path, "a"), bad], tmp_path)
    message = str(caught.value)
    assert message.startswith("Stage bad: failed with exit code 3 (cannot open the box)")
    assert str(tmp_path / "stages" / "bad.log") in message
    assert "\n" not in message


def test_a_stage_without_its_output_has_failed(tmp_path) -> None:
    with pytest.raises(RunError, match="did not write"):
        run([stage(tmp_path, "empty", "pass")], tmp_path)


def test_an_interrupt_ends_the_whole_stage(tmp_path) -> None:
    pid_file = tmp_path / "pid"
    sleeper = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    script = f"""
import signal
from pathlib import Path
from rich.console import Console
from lad_rehearsal.demo.stages import Stage, run_stages
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests themselves run in the background
stage = Stage(name="s", title="S", commands=[{python(sleeper)!r}], output=Path("x"))
run_stages([stage], Path({str(tmp_path)!r}), Console())
"""
    process = subprocess.Popen(python(script), stderr=subprocess.PIPE, env={**os.environ})
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(pid_file.read_text())
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in error
    assert not psutil.pid_exists(child)


def test_memory_counts_children_and_forgets_the_dead() -> None:
    code = "import time; block = b'x' * 50_000_000; print('!', flush=True); time.sleep(60)"
    with subprocess.Popen(python(code), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        with PeakMemory(os.getpid(), interval=0.05) as memory:
            time.sleep(0.1)
        assert tree_bytes(child.pid) >= 50_000_000
        assert memory.bytes >= tree_bytes(child.pid)
        child.kill()
    assert tree_bytes(child.pid) == 0
