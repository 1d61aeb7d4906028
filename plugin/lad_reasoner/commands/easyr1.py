"""The `easyr1` command: train with EasyR1's own grammar, on whichever trainer is installed.

The grammar is EasyR1's (``config=FILE key=value ...``), not that of options, so words are read here and not by a
command-line library.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from lad_reasoner import __version__
from lad_reasoner.commands.lad import run_app
from lad_reasoner.support.errors import UsageError
from lad_reasoner.training.installed import Trainer, TrainerName, find_trainer, require_trainer

__all__ = ["main"]

HELP: Final = """\
Train with GRPO from an EasyR1 config, by EasyR1 or by verl, whichever is installed.

usage:
  easyr1 config=FILE [key=value ...] [--no-check]      check, then train; run again to resume
  easyr1 check config=FILE [key=value ...] [--json]    say what would go wrong, in seconds, without torch or Ray
  easyr1 show config=FILE [key=value ...] [--as easyr1|verl] [--json]
                                                       print the trainer's command and the resolved config; with
                                                       --as verl, verl's overrides as a script
  easyr1 rehearse config=FILE [key=value ...] [--steps 2] [--out DIR] [--as easyr1|verl] [--synthetic] [--json]
                                                       train two steps on this CPU with a tiny model of the same kind
  easyr1 merge CHECKPOINT --out DIR [--dtype bfloat16|float16|float32]
                                                       make a Hugging Face folder of either trainer's checkpoint

Keys are EasyR1's. FILE is laid over EasyR1's defaults, key=value words over FILE; an unknown key is an error.
Without a GPU, verl runs on the CPU. With RAY_ADDRESS (auto or HOST:PORT), the run joins a Ray cluster.

options:
  --no-check   train although the check would object
  --as NAME    show what this trainer would be given on GPUs, installed or not; rehearse with this one
  --steps N    rehearse so many steps (2)
  --synthetic  rehearse on drawn pairs, where the config's data is not here
  --json       print JSON
  --debug      show the traceback of an error
  --version    print the version

examples:
  easyr1 config=examples/grpo/qwen2_5_vl_3b_loco.yaml
  easyr1 check config=examples/grpo/qwen2_5_vl_3b_loco.yaml data.max_pixels=200704
  easyr1 config=examples/demo/grpo.yaml trainer.max_steps=2 trainer.logger=[console]
  easyr1 show config=examples/grpo/qwen2_5_vl_3b_loco.yaml --as verl > verl.sh && bash verl.sh
  easyr1 rehearse config=examples/grpo/qwen2_5_vl_3b_loco.yaml --synthetic
  EASYR1_HOME=~/EasyR1 easyr1 rehearse config=examples/grpo/qwen2_5_vl_3b_loco.yaml
  easyr1 merge runs/grpo/qwen2_5_vl_3b_loco/global_step_50 --out models/lad-reasoner
"""

FLAGS: Final = {"--no-check", "--json", "--debug"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `easyr1` and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run_app(lambda: _dispatch(words), debug="--debug" in words))


def _dispatch(words: list[str]) -> None:
    if not words or {"-h", "--help"} & set(words):
        print(HELP, end="")
    elif "--version" in words:
        print(f"lad-reasoner {__version__}")
    elif words[0] == "show":
        _show(words[1:])
    elif words[0] == "check":
        _check(words[1:])
    elif words[0] == "rehearse":
        _rehearse(words[1:])
    elif words[0] == "merge":
        _merge(words[1:])
    elif "=" not in words[0] and not words[0].startswith("-"):
        raise UsageError(
            words[0],
            found="no such command",
            expected="check, show, rehearse, merge or config=FILE",
            remedy="see --help",
        )
    else:
        _train(words)


def _split(words: list[str], allowed: set[str]) -> tuple[list[str], set[str]]:
    """Return the ``key=value`` words and the flags.

    Raises:
        UsageError: A flag that this verb does not have.
    """
    flags = {word for word in words if word.startswith("--")}
    if strange := sorted(flags - allowed - {"--debug"}):
        raise UsageError(strange[0], found="no such option here", remedy="see `easyr1 --help`")
    return [word for word in words if word not in flags], flags


def _train(words: list[str]) -> None:
    from lad_reasoner.training.easyr1.config import load_config, read_keys
    from lad_reasoner.training.preflight.preflight import refuse_errors, run_checks, total_steps
    from lad_reasoner.training.run.launch import launch

    given, flags = _split(words, {"--no-check"})
    trainer = require_trainer()
    keys = read_keys(trainer)
    config = load_config(given, keys)
    if "--no-check" not in flags:
        refuse_errors(run_checks(config, trainer, keys))
    launch(config, trainer, keys, total_steps=total_steps(config), check="--no-check" not in flags)


def _check(words: list[str]) -> None:
    from lad_reasoner.training.easyr1.config import load_config, read_keys
    from lad_reasoner.training.preflight.preflight import print_findings, run_checks

    given, flags = _split(words, {"--json"})
    trainer = find_trainer()
    keys = read_keys(trainer)
    findings = run_checks(load_config(given, keys), trainer, keys)
    print_findings(findings, as_json="--json" in flags)
    if any(finding.is_error for finding in findings):
        sys.exit(1)


def _show(words: list[str]) -> None:
    import yaml

    from lad_reasoner.training.easyr1.config import load_config, read_keys
    from lad_reasoner.training.run.attempt import next_attempt
    from lad_reasoner.training.run.cluster import cluster_address
    from lad_reasoner.training.run.launch import build_command, finds_gpu

    words, wanted = _take_option(words, "--as", ("easyr1", "verl"))
    given, flags = _split(words, {"--json"})
    keys = read_keys(find_trainer())
    config = load_config(given, keys)
    trainer = _trainer_named(wanted)
    attempt = next_attempt(config.run_dir)
    # What runs here, or what the named trainer would be given where there are GPUs.
    cluster, gpu = cluster_address() is not None, wanted is not None or finds_gpu()
    command = build_command(config, trainer, keys, attempt, gpu=gpu, cluster=cluster)
    if "--json" in flags:
        shown = {"trainer": trainer.name, "version": trainer.version, "on_cpu": command.on_cpu}
        print(json.dumps({**shown, "config": config.as_tree(), "command": command.words}, indent=1))
        return
    if wanted == "verl":
        print(_as_script(command.words, source=config.source))
        return
    print(f"# trainer: {trainer.name} {trainer.version}{', on the CPU' if command.on_cpu else ''}")
    print(f"# command: {command}\n# the resolved config:")
    print(yaml.safe_dump(config.as_tree(), sort_keys=False, allow_unicode=True), end="")


def _as_script(words: Sequence[str], *, source: Path | None) -> str:
    """Return a Python module's command line as a script: a line an override, to which more can be given."""
    lines = [
        "#!/usr/bin/env bash",
        f"# {source or 'The command line'} in verl's words; `bash FILE key=value ...` adds overrides.",
        " \\\n  ".join([f"exec python {shlex.join(words[1:3])}", *map(shlex.quote, words[3:]), '"$@"']),
    ]
    return "\n".join(lines)


def _rehearse(words: list[str]) -> None:
    from importlib.metadata import entry_points

    [entry] = entry_points(group="lad_reasoner.easyr1_commands", name="rehearse")
    command = entry.load()

    words, trainer = _take_option(words, "--as", ("easyr1", "verl"))
    words, out = _take_option(words, "--out")
    words, steps = _take_option(words, "--steps")
    given, flags = _split(words, {"--json", "--synthetic", "--no-check"})
    if steps is not None and (not steps.isdecimal() or int(steps) < 1):
        raise UsageError("--steps", found=steps, expected="a whole number, at least 1")
    options = command.Options(
        steps=int(steps or 2),
        out=Path(out) if out else None,
        trainer=cast("TrainerName | None", trainer),
        synthetic="--synthetic" in flags,
        check="--no-check" not in flags,
        as_json="--json" in flags,
    )
    command.rehearse(given, options)


def _merge(words: list[str]) -> None:
    from lad_reasoner.models.merge import merge_checkpoint

    words, dtype = _take_option(words, "--dtype", ("bfloat16", "float16", "float32"))
    words, out = _take_option(words, "--out")
    places, _flags = _split(words, set())
    if len(places) != 1 or out is None:
        raise UsageError("merge", found=f"{len(places)} folders", expected="easyr1 merge CHECKPOINT --out DIR")
    count = merge_checkpoint(Path(places[0]), Path(out), dtype=dtype or "bfloat16")  # type: ignore[arg-type]  # a choice
    print(f"{out}: {count:,} parameters, verified by loading them again")


def _trainer_named(name: str | None) -> Trainer:
    """Return the installed trainer, or the one asked for even if it is not installed."""
    installed = find_trainer()
    if name is None:
        return require_trainer()
    if installed is not None and installed.name == name:
        return installed
    return Trainer("verl" if name == "verl" else "easyr1", "not installed here", Path())


def _take_option(words: list[str], option: str, choices: tuple[str, ...] = ()) -> tuple[list[str], str | None]:
    """Return the words without ``option VALUE``, and VALUE.

    Raises:
        UsageError: VALUE is missing or none of the choices.
    """
    if option not in words:
        return words, None
    place = words.index(option)
    value = "".join(words[place + 1 : place + 2])
    if not value or (choices and value not in choices):
        raise UsageError(option, found=repr(value), expected=" or ".join(choices) or "a value")
    return [*words[:place], *words[place + 2 :]], value


if __name__ == "__main__":
    main()
