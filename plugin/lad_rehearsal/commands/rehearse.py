"""`easyr1 rehearse`: train a few steps of a config on this CPU with a tiny model of the same family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_reasoner.commands.easyr1 import Structured
from lad_reasoner.commands.help import Words
from lad_reasoner.training.installed import TrainerName
from lad_reasoner.training.runtimes import RolloutEngine

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

    options = RehearsalOptions(
        steps=steps,
        out=out,
        trainer=trainer,
        synthetic=synthetic,
        check=not no_check,
        as_json=as_json,
        engine=engine,
        structured=structured,
    )
    rehearse(words, options)
