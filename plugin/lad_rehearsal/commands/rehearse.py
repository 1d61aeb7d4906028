"""`easyr1 rehearse`: train a few steps of a config on this CPU with a tiny model of the same family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lad_reasoner.commands.easyr1 import Structured
from lad_reasoner.commands.findings import refuse_errors
from lad_reasoner.commands.help import Words
from lad_reasoner.support.console import make_console, print_json
from lad_reasoner.training.installed import TrainerName
from lad_reasoner.training.run.follow import describe_step
from lad_reasoner.training.runtimes import RolloutEngine

if TYPE_CHECKING:
    from rich.console import Console

    from lad_rehearsal.rehearse.report import RehearsalReport

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `rehearse` to `easyr1`."""
    app.command("rehearse")(rehearse_command)


def rehearse_command(
    words: Words,
    *,
    steps: Annotated[int, typer.Option(min=1, help="Steps to train.")] = 2,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the rehearsal. Default: the checkpoint folder with -rehearsal appended."),
    ] = None,
    trainer: Annotated[
        TrainerName | None,
        typer.Option(
            "--as", help="Trainer to rehearse with. Default: the checkout at EASYR1_HOME, else what is installed."
        ),
    ] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Use synthetic pairs, for a config whose data is not on this machine.")
    ] = False,
    engine: Annotated[
        RolloutEngine,
        typer.Option(help="What samples the responses: transformers, or vLLM's CPU build with the config's limits."),
    ] = "transformers",
    structured: Structured = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Rehearse even if the checks find errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train two steps on this CPU with a tiny model of the same family.

    The config's own data, prompt, reward and algorithm are used. The report lists every key that was changed and what
    only the real run can show.

    Example: easyr1 rehearse config=examples/grpo/qwen2_5_vl_3b_loco.yaml

    Example: easyr1 rehearse config=examples/grpo/qwen2_5_vl_3b_loco.yaml --synthetic

    Example: easyr1 rehearse config=examples/grpo/qwen2_5_vl_3b_loco.yaml --engine vllm --structured

    Example: EASYR1_HOME=~/EasyR1 easyr1 rehearse config=examples/grpo/qwen2_5_vl_3b_loco.yaml
    """
    from lad_rehearsal.rehearse.rehearsal import RehearsalOptions, rehearse

    options = RehearsalOptions(steps, out, trainer, synthetic=synthetic, engine=engine, structured=structured)
    _print_report(rehearse(words, options, judge=None if no_check else refuse_errors), as_json=as_json)


def _print_report(report: RehearsalReport, *, as_json: bool) -> None:
    """Print the report on stdout, as text or as JSON."""
    if as_json:
        print_json(json.loads(json.dumps(asdict(report), default=str)))
        return
    console = make_console(soft_wrap=True)
    console.print(f"Rehearsed {report.config} with {report.trainer} in {report.seconds:.0f} s: {report.folder}")
    trained = [step for step in report.steps if "reward" in step]
    for step in trained:
        console.print(f"  {describe_step(step, len(trained))}")
    console.print(f"  checkpoint {report.checkpoint}")
    changed = [f"{one.key}: {_short(one.was)} -> {_short(one.now)} ({one.why})" for one in report.changed]
    settings = [f"{name} {value}" for name, value in report.vllm_settings.items()]
    _print_list(console, "Changed for the rehearsal:", changed)
    _print_list(console, "vLLM:", [*settings, *report.vllm_messages])
    _print_list(console, "Not covered:", [f"{gap.what}: {gap.why}" for gap in report.not_covered])


def _print_list(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(title, style="bold")
    for line in lines:
        console.print(f"  {line}")


def _short(value: Any) -> str:
    return Path(value).name if isinstance(value, str) and value.startswith("/") else str(value)
