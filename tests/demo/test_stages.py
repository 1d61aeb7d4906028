"""A chain of commands: run, stopped, failed, taken up again."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from lad_reasoner.support.errors import RunError
from lad_rehearsal.demo import stages
from lad_rehearsal.demo.memory import PeakMemory, tree_bytes
from lad_rehearsal.demo.progress import Progress, Timer, count_files, count_lines
from lad_rehearsal.demo.stages import Stage, run_stages


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def stage(folder: Path, name: str, code: str | None = None) -> Stage:
    output = folder / f"{name}.txt"
    append = f"open({str(output)!r}, 'a').write('x'); print('wrote', flush=True)"
    return Stage(
        name=name,
        title=f"Stage {name}",
        commands=[python(code or append)],
        output=output,
        progress=Progress("files", 1, lambda: int(output.exists())),
        expected=1,
    )


def run(chain: list[Stage], folder: Path, *, together: bool = False) -> tuple[list, str]:
    text = io.StringIO()
    return run_stages(
        [chain] if together else [[stage] for stage in chain], folder, Console(file=text, width=200)
    ), text.getvalue()


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
from lad_rehearsal.demo.progress import Progress, Timer, count_files, count_lines
from lad_rehearsal.demo.progress import Progress
from lad_rehearsal.demo.stages import Stage, run_stages
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests themselves run in the background
stage = Stage("s", "Sleep", [{python(sleeper)!r}], Path("x"), Progress("naps", 1, lambda: 0), 60)
run_stages([[stage]], Path({str(tmp_path)!r}), Console(stderr=True))
"""
    process = subprocess.Popen(python(script), stderr=subprocess.PIPE, env={**os.environ})
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(pid_file.read_text())
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in error
    assert b"stopped in stage 1 of 1 (Sleep)\n" in error
    assert not psutil.pid_exists(child)


def test_commands_of_a_stage_run_at_the_same_time(tmp_path) -> None:
    """Each waits for the other's file, so neither could end alone."""
    code = "import pathlib, time; pathlib.Path({!r}).touch()\nwhile not pathlib.Path({!r}).exists(): time.sleep(0.01)"
    one, two = str(tmp_path / "one.txt"), str(tmp_path / "two.txt")
    both = replace(stage(tmp_path, "one"), commands=[python(code.format(one, two)), python(code.format(two, one))])
    assert len(run([both], tmp_path)[0]) == 1


def waiting_for(folder: Path, own: str, other: str) -> Stage:
    """Return a stage that ends only once another one has started."""
    code = "import pathlib, time; pathlib.Path({!r}).touch()\nwhile not pathlib.Path({!r}).exists(): time.sleep(0.01)"
    return stage(folder, own, code.format(*(str(folder / f"{name}.txt") for name in (own, other))))


def test_stages_of_a_group_run_at_the_same_time(tmp_path) -> None:
    text = io.StringIO()
    group = [waiting_for(tmp_path, "one", "two"), waiting_for(tmp_path, "two", "one")]
    records = run_stages([group, [stage(tmp_path, "after")]], tmp_path, Console(file=text, width=200))
    assert [record.name for record in records] == ["one", "two", "after"]
    assert text.getvalue().index("[1/3] Stage one: ") < text.getvalue().index("[3/3] Stage after: ")


def test_an_unfinished_stage_of_a_group_runs_again_without_the_finished_one(tmp_path) -> None:
    console = Console(file=(text := io.StringIO()), width=200)
    done, after = stage(tmp_path, "done"), stage(tmp_path, "after")
    record = str(tmp_path / "stages" / "done.json")
    fails = f"import os, time\nwhile not os.path.exists({record!r}): time.sleep(0.01)\nraise SystemExit('no room')"
    with pytest.raises(RunError, match="no room"):
        run_stages([[done, stage(tmp_path, "bad", fails)], [after]], tmp_path, console)
    run_stages([[done, stage(tmp_path, "bad")], [after]], tmp_path, console)
    assert "[1/3] Stage done: already done" in text.getvalue()
    assert [(tmp_path / f"{name}.txt").read_text() for name in ("done", "bad", "after")] == ["x", "x", "x"]


def test_a_failing_stage_ends_the_others_of_its_group(tmp_path) -> None:
    sleeping = stage(tmp_path, "sleep", "import time; time.sleep(600)")
    with pytest.raises(RunError, match="Stage bad: failed with exit code 1 \\(no room\\)"):
        run([sleeping, stage(tmp_path, "bad", "raise SystemExit('no room')")], tmp_path, together=True)
    assert not any("time.sleep(600)" in " ".join(child.cmdline()) for child in psutil.Process().children())


def test_one_failing_command_ends_the_others(tmp_path) -> None:
    commands = [python("import time; time.sleep(600)"), python("raise SystemExit('no room')")]
    with pytest.raises(RunError, match="no room"):
        run([replace(stage(tmp_path, "both"), commands=commands)], tmp_path)


def test_a_pipe_gets_progress_and_no_line_of_the_command(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(stages, "QUIET_INTERVAL", 0.0)
    long = tmp_path / ("long" * 30)
    code = f"print('RAW framework line', flush=True); import time; time.sleep(0.5); open({str(long)!r}, 'w')"
    noisy = replace(stage(tmp_path, "noisy", code), output=long, title=f"write {long}", expected=60)
    text = io.StringIO()
    run_stages([[noisy]], tmp_path, Console(file=text, width=40))
    lines = text.getvalue().splitlines()
    assert "RAW" not in text.getvalue()
    assert any(line.startswith(f"[1/1] write {long}: 0 of 1 files, ") and line.endswith(" left") for line in lines)
    assert (tmp_path / "stages" / "noisy.log").read_text() == "RAW framework line\n"


def test_remaining_time_follows_the_rate_once_there_is_one() -> None:
    clock, done = [100.0], [0]
    timer = Timer(Progress("steps", 10, lambda: done[0]), expected=60, clock=lambda: clock[0])
    clock[0] = 120.0
    assert timer.line() == "0 of 10 steps, 20 s, about 40 s left"
    clock[0] = 170.0
    assert timer.line() == "0 of 10 steps, 1 min 10 s, longer than expected"
    done[0], clock[0] = 1, 130.0  # starting up took 30 s; this is no rate yet
    assert timer.line() == "1 of 10 steps, 30 s, about 30 s left"
    done[0], clock[0] = 4, 145.0
    assert timer.line() == "4 of 10 steps, 45 s, about 30 s left"
    done[0] = 10
    assert timer.line() == "10 of 10 steps, 45 s, finishing"


def test_progress_counts_lines_and_files(tmp_path) -> None:
    for attempt, text in (("001", "a\nb\n"), ("002", "c\nhalf")):
        (tmp_path / attempt).mkdir()
        (tmp_path / attempt / "log.jsonl").write_text(text)
    assert count_lines(tmp_path / "*" / "log.jsonl")() == 3
    assert count_lines(tmp_path / "none.jsonl")() == 0
    assert count_files(tmp_path, "*.jsonl")() == 2
    assert count_files(tmp_path / "none", "*")() == 0


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
