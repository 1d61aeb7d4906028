"""The `easyr1` command: train with EasyR1's own grammar, on whichever trainer is installed."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from lad_reasoner.commands.findings import print_findings, refuse_errors
from lad_reasoner.commands.help import HelpGroup, Words, use_help_style
from lad_reasoner.commands.lad import new_app, run_words
from lad_reasoner.support.console import echo
from lad_reasoner.training.installed import Trainer, TrainerName, find_trainer, require_trainer

__all__ = ["build_app", "main"]

HELP: Final = """\
Train with GRPO from an EasyR1 config, with EasyR1 or verl, whichever is installed.

`easyr1 config=FILE` trains. Keys are EasyR1's; an unknown key is an error. Without a GPU, verl runs on the CPU. With
RAY_ADDRESS (auto or HOST:PORT) the run joins a Ray cluster.

Example: easyr1 check config=examples/grpo/qwen2_5_vl_3b_loco.yaml

Example: easyr1 config=examples/grpo/qwen2_5_vl_3b_loco.yaml

Example: easyr1 merge runs/grpo/qwen2_5_vl_3b_sft_grpo/global_step_50 --out models/lad-reasoner
"""

#: The entry point group under which other packages name a module with ``register(app)``.
ENTRY_POINT_GROUP: Final = "lad_reasoner.easyr1_commands"

NoCheck = Annotated[bool, typer.Option("--no-check", help="Start even if the checks find errors.")]
Structured = Annotated[
    bool, typer.Option("--structured", help="Restrict rollouts to the answer template (verl with vLLM).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class _Easyr1Group(HelpGroup):
    """Trains where no command is named: ``easyr1 config=FILE`` is ``easyr1 train config=FILE``."""

    ORDER = ("check", "show", "rehearse", "train", "merge")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command that EasyR1's grammar leaves out."""
        bare = bool(args) and (
            args[0] in {"--no-check", "--structured"} or ("=" in args[0] and not args[0].startswith("-"))
        )
        return super().parse_args(ctx, ["train", *args] if bare else args)


def build_app() -> typer.Typer:
    """Return the `easyr1` application with every command on it."""
    app = new_app("easyr1", _Easyr1Group, HELP)
    app.command("check")(check_command)
    app.command("show")(show_command)
    app.command("train")(train_command)
    app.command("merge")(merge_command)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        entry.load().register(app)
    use_help_style(app)
    return app


def check_command(words: Words, *, structured: Structured = False, as_json: AsJson = False) -> None:
    """Report what would go wrong, in seconds, without torch or Ray.

    Reads the data, the reward and the model's config. Exit code 1 if there is an error.

    Example: easyr1 check config=examples/grpo/qwen2_5_vl_3b_loco.yaml

    Example: easyr1 check config=examples/grpo/qwen2_5_vl_3b_loco.yaml data.max_pixels=200704
    """
    from lad_reasoner.training.easyr1.config import load_config, read_keys
    from lad_reasoner.training.preflight import CHECKS, run_checks

    trainer = find_trainer()
    findings = run_checks(load_config(words, read_keys(trainer), structured=structured), trainer)
    print_findings(findings, checks=len(CHECKS), as_json=as_json)
    if any(finding.is_error for finding in findings):
        raise typer.Exit(1)


def show_command(
    words: Words,
    *,
    as_trainer: Annotated[
        TrainerName | None,
        typer.Option("--as", help="Show what this trainer would be given on GPUs, installed or not."),
    ] = None,
    structured: Structured = False,
    as_json: AsJson = False,
) -> None:
    """Print the trainer's command and the resolved config; with --as verl, verl's overrides as a script.

    Example: easyr1 show config=examples/grpo/qwen2_5_vl_3b_loco.yaml

    Example: easyr1 show config=examples/grpo/qwen2_5_vl_3b_loco.yaml --as verl > verl.sh && bash verl.sh
    """
    import yaml

    from lad_reasoner.training.easyr1.config import load_config, read_keys
    from lad_reasoner.training.preflight import require_bounds
    from lad_reasoner.training.run.plan import build_command, finds_gpu, next_attempt

    config = load_config(words, read_keys(find_trainer()), structured=structured)
    require_bounds(config)
    trainer = _trainer_named(as_trainer)
    # EasyR1 needs a GPU, so its command is shown as on a machine that has one; `check` reports the missing GPU.
    gpu = as_trainer is not None or trainer.name == "easyr1" or finds_gpu()
    command = build_command(config, trainer, next_attempt(config.run_dir), gpu=gpu)
    if as_json:
        shown = {"trainer": trainer.name, "version": trainer.version, "on_cpu": command.on_cpu}
        print(json.dumps({**shown, "config": config.as_tree(), "command": command.words}, indent=1))
    elif as_trainer == "verl":
        print(_as_script(command.words, source=config.source))
    else:
        echo(f"# trainer: {trainer.name} {trainer.version}{', on the CPU' if command.on_cpu else ''}")
        echo(f"# command: {command}\n# the resolved config:")
        print(yaml.safe_dump(config.as_tree(), sort_keys=False, allow_unicode=True), end="")


def train_command(words: Words, *, structured: Structured = False, no_check: NoCheck = False) -> None:
    """Check a config, then train; run the same command again to resume.

    The word `train` may be left out.

    Example: easyr1 config=examples/grpo/qwen2_5_vl_3b_loco.yaml

    Example: easyr1 config=examples/grpo/qwen2_5_vl_3b_loco.yaml trainer.max_steps=2 'trainer.logger=[console]'

    Example: easyr1 config=examples/grpo/qwen2_5_vl_3b_loco.yaml --structured
    """
    from lad_reasoner.training.easyr1.config import load_config, read_keys
    from lad_reasoner.training.preflight import run_checks, total_steps
    from lad_reasoner.training.run.start import start_training

    trainer = require_trainer()
    config = load_config(words, read_keys(trainer), structured=structured)
    if not no_check:
        refuse_errors(run_checks(config, trainer))
    start_training(config, trainer, total_steps=total_steps(config), check=not no_check)


def merge_command(
    checkpoint: Annotated[Path, typer.Argument(help="A global_step_<n> folder of EasyR1 or verl.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the model; it must not exist.")],
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"], typer.Option(help="Precision of the weights.")
    ] = "bfloat16",
) -> None:
    """Merge a checkpoint of either trainer into a Hugging Face model folder.

    LoRA adapters are added to the weights. The result is loaded again and compared before it appears.

    Example: easyr1 merge runs/grpo/qwen2_5_vl_3b_sft_grpo/global_step_50 --out models/lad-reasoner
    """
    from lad_reasoner.models.merge import merge_checkpoint

    count = merge_checkpoint(checkpoint, out, dtype=dtype)
    echo(f"{out}: {count:,} parameters, verified by loading them again")


def _as_script(words: Sequence[str], *, source: Path | None) -> str:
    """Return a Python module's command line as a script with one override per line; it accepts further overrides."""
    lines = [
        "#!/usr/bin/env bash",
        f"# {source or 'The command line'} as verl's overrides; `bash FILE key=value ...` adds more.",
        " \\\n  ".join([f"exec python {shlex.join(words[1:3])}", *map(shlex.quote, words[3:]), '"$@"']),
    ]
    return "\n".join(lines)


def _trainer_named(name: TrainerName | None) -> Trainer:
    """Return the installed trainer, or the named one even if it is not installed."""
    installed = find_trainer()
    if name is None:
        return require_trainer()
    if installed is not None and installed.name == name:
        return installed
    return Trainer(name, "not installed here", Path())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `easyr1` and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    run_words(build_app, words or ["--help"])


if __name__ == "__main__":
    main()
