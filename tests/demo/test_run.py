"""What `lad demo` checks before its first stage, and what it says before and after."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lad_reasoner.support.console import make_console
from lad_reasoner.support.errors import LadError, RunError, UsageError
from lad_reasoner.support.files import locked
from lad_rehearsal.demo import run
from lad_rehearsal.demo.chain import Chain
from lad_rehearsal.demo.stages import run_stages


def test_a_missing_or_wrong_package_is_reported_before_anything_runs(monkeypatch, tmp_path) -> None:
    real = run.installed_version

    def installed_version(name: str) -> str | None:
        changed = {"ray": None, "llamafactory": "0.1"}
        return changed[name] if name in changed else real(name)

    monkeypatch.setattr(run, "installed_version", installed_version)
    monkeypatch.setattr(run, "run_stages", lambda *_: pytest.fail("a stage ran"))
    declared = ['verl==0.9.1; extra == "verl"', 'ray>=2; extra == "verl"', 'llamafactory>=0.9; extra == "sft"']
    monkeypatch.setattr(run, "requires", lambda _: ['lad-reasoner[sft,verl]; extra == "cpu"', *declared, "rich"])
    with pytest.raises(UsageError) as caught:
        run.run_demo(tmp_path / "out", seed=1)
    message = str(caught.value)
    assert "ray is not installed" in message
    assert "llamafactory is 0.1, not >=0.9" in message
    assert "pip install '.[cpu]'" in message
    assert not (tmp_path / "out").exists()


def test_the_plan_comes_first_with_time_and_memory(monkeypatch, tmp_path, capsys) -> None:
    def stop(groups, *_) -> None:
        raise LadError(f"{sum(map(len, groups))} stages")

    monkeypatch.setattr(run, "require_packages", lambda: None)
    monkeypatch.setattr(run, "run_stages", stop)
    with pytest.raises(LadError, match="10 stages"):
        run.run_demo(tmp_path / "out", seed=1)
    text = capsys.readouterr().err
    for words in (
        "synthetic",
        "base, +SFT, +GRPO, +SFT+GRPO",
        "10 stages",
        "min",
        "GiB",
        "the same command continues",
    ):
        assert words in text


def test_a_second_demonstration_in_the_same_folder_is_refused(monkeypatch, tmp_path) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(run, "require_packages", lambda: None)
    monkeypatch.setattr(run, "run_stages", lambda *_: pytest.fail("a stage ran"))
    with locked(out), pytest.raises(RunError, match="is writing this output"):
        run.run_demo(out, seed=1)
    assert not out.exists()


def test_every_stage_has_progress_and_an_estimate(tmp_path) -> None:
    for stage in (stage for group in Chain(tmp_path, tmp_path).stages() for stage in group):
        assert stage.progress.count() == 0
        assert stage.progress.total > 0
        assert stage.expected > 0


def test_next_steps_name_the_report_and_two_commands() -> None:
    text = "\n".join(run.next_steps(Path("my out")))
    assert "my out/report/index.html" in text
    assert "lad serve --model 'my out/models/sft-grpo'" in text
    assert "lad ask --model 'my out/models/sft-grpo' --reference 'my out/examples/reference.png'" in text


def test_an_unfinished_report_is_removed_before_it_is_written_again(tmp_path) -> None:
    """`lad report` refuses a folder that is not empty and has no page."""
    chain = Chain(tmp_path, tmp_path)
    (chain.report / "images").mkdir(parents=True)
    (chain.report / "images" / "a.png").touch()
    writes = f"import pathlib; p = pathlib.Path({str(chain.report)!r}); p.mkdir(); (p / 'index.html').touch()"
    (report,) = chain.stages()[-1]
    report = replace(report, commands=[(sys.executable, "-c", writes)])
    run_stages([[report]], tmp_path, make_console(err=True))
    assert [path.name for path in chain.report.iterdir()] == ["index.html"]
