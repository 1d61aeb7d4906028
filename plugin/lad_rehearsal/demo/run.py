"""Run the demonstration and summarise its results."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from lad_reasoner.support.errors import DataError, UsageError, install_hint
from lad_rehearsal.demo.chain import VARIANTS, Chain, iter_examples
from lad_rehearsal.demo.stages import run_stages

__all__ = ["run_demo"]

#: What the stages import beyond the core.
_PACKAGES: Final = ("torch", "torchvision", "transformers", "llamafactory", "verl", "ray")


def run_demo(out: Path, *, seed: int) -> dict[str, Any]:
    """Run the unfinished stages; write ``summary.json`` and the plots; return the summary.

    Args:
        out: Folder of the demonstration; an earlier demonstration in it is continued.
        seed: Random seed of the data, the trainers and the sampled answers.

    Raises:
        UsageError: The folder contains something else, or a package is not installed.
        DataError: The example configs are not installed.
        RunError: A stage failed.
    """
    _require_packages()
    console = Console(stderr=True, highlight=False)
    folder = _own_folder(out.resolve())
    chain = Chain(folder=folder, examples=_find_examples(), seed=seed)
    records = run_stages(chain.stages(), folder, console)

    # Imported after the long part: the import takes seconds, and nothing before needs it.
    from lad_reasoner.report.training_curves import read_runs, write_plots
    from lad_rehearsal.demo.summary import summarize

    summary = summarize(chain, records)
    path = folder / "summary.json"
    path.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    write_plots(read_runs([f"{VARIANTS[name]}={chain.run_dir(name)}" for name in ("grpo", "sft-grpo")]), folder)
    console.print(f"figures of every step: {folder / 'training.png'}\nall measurements:      {path}", soft_wrap=True)
    return summary


def _require_packages() -> None:
    """Check for what the stages need, before the first one runs."""
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        problem = f"lad demo needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise UsageError(problem, remedy=install_hint("cpu"))


def _own_folder(folder: Path) -> Path:
    marker = folder / "stages"
    if folder.exists() and not folder.is_dir():
        raise UsageError("this is a file", where=folder, remedy="Choose another folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not marker.is_dir():
        problem = "the folder is not empty and does not contain a demonstration"
        raise UsageError(problem, where=folder, remedy="Choose another folder with --out")
    marker.mkdir(parents=True, exist_ok=True)
    return folder


def _find_examples() -> Path:
    places = list(iter_examples())
    for place in places:
        if (place / "demo" / "grpo.yaml").is_file():
            return place
    raise DataError("the example configs are missing", where=places[-1], remedy="Install the package again")
