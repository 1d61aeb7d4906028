"""Run the demonstration and summarise its results."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import requires
from pathlib import Path
from typing import Any, Final

from lad_reasoner.pairs.reader import iter_pairs, read_image
from lad_reasoner.support.console import make_console
from lad_reasoner.support.errors import DataError, UsageError, install_hint
from lad_reasoner.support.files import locked
from lad_reasoner.support.packages import installed_version
from lad_rehearsal.demo.chain import VARIANTS, Chain, iter_examples
from lad_rehearsal.demo.stages import run_stages

__all__ = ["next_steps", "require_packages", "run_demo"]

#: The extra that names what the stages import.
_EXTRA: Final = "cpu"

#: Peak memory (PSS) of the whole demonstration in GiB: docs/demo.md.
_MEMORY: Final = 4.3

#: The defect of the example pair.
_EXAMPLE: Final = "recoloured_part"


def run_demo(out: Path, *, seed: int) -> dict[str, Any]:
    """Run the unfinished stages; write ``summary.json``, the plots and an example pair; return the summary.

    Args:
        out: Folder of the demonstration; an earlier demonstration in it is continued.
        seed: Random seed of the data, the trainers and the sampled answers.

    Raises:
        UsageError: The folder contains something else, or a package is not installed.
        DataError: The example configs are not installed.
        RunError: A stage failed, or another process runs a demonstration in this folder.
    """
    require_packages()
    with locked(out.resolve()):
        return _run(_own_folder(out.resolve()), seed)


def _run(folder: Path, seed: int) -> dict[str, Any]:
    console = make_console(err=True)
    chain = Chain(folder=folder, examples=_find_examples(), seed=seed)
    groups = chain.stages()
    count, seconds = sum(map(len, groups)), sum(max(stage.expected for stage in group) for group in groups)
    for line in (
        "SFT and GRPO of a tiny model on synthetic images, with LLaMA-Factory and verl, and the answers of",
        f"four variants: {', '.join(VARIANTS.values())}.",
        f"{count} stages, about {round(seconds / 60)} minutes on two idle cores, at most {_MEMORY} GiB of memory.",
        "The KL penalty is in the loss, not in the reward as in the paper; docs/demo.md explains why.",
        "Ctrl-C stops; the same command continues.",
    ):
        console.print(line, soft_wrap=True)
    records = run_stages(groups, folder, console)

    # Imported after the long part: the import takes seconds, and nothing before needs it.
    from lad_reasoner.report.training_curves import read_runs, write_plots
    from lad_rehearsal.demo.summary import summarize

    summary = summarize(chain, records)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    write_plots(read_runs([f"{VARIANTS[name]}={chain.run_dir(name)}" for name in ("grpo", "sft-grpo")]), folder)
    _write_examples(chain)
    return summary


def next_steps(out: Path) -> list[str]:
    """Return what to look at and what to try after the demonstration, as lines."""
    model, examples = out / "models" / "sft-grpo", out / "examples"
    ask = [
        "lad",
        "ask",
        "--model",
        model,
        "--reference",
        examples / "reference.png",
        "--query",
        examples / "query.png",
    ]
    return [
        f"Report:       {out / 'report' / 'index.html'}",
        f"Training:     {out / 'training.png'}",
        f"Measurements: {out / 'summary.json'}",
        "",
        f"Ask the trained model about two images of {examples}, or open a page for your own pairs of them:",
        f"  {shlex.join(map(str, ask))}",
        f"  {shlex.join(['lad', 'serve', '--model', str(model)])}",
    ]


def _write_examples(chain: Chain) -> None:
    """Write a pair of the LOCO set as image files, and link the last model under a short name."""
    folder = chain.folder / "examples"
    folder.mkdir(exist_ok=True)
    pair = next(pair for pair in iter_pairs(chain.loco) if pair.truth.defect == _EXAMPLE)
    for name, image in zip(("reference.png", "query.png"), pair.images, strict=True):
        (folder / name).write_bytes(read_image(image, chain.folder))
    link = chain.folder / "models" / "sft-grpo"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("..") / chain.model("sft-grpo").relative_to(chain.folder))


def require_packages() -> None:
    """Check what the stages need before the first one runs: the packages of the extra, and their versions."""
    from packaging.requirements import Requirement

    faults, extras, seen = [], [_EXTRA], {_EXTRA}
    declared = [Requirement(line) for line in requires("lad-reasoner") or ()]
    while extras:
        extra = extras.pop()
        for needed in declared:
            if needed.marker is None or not needed.marker.evaluate({"extra": extra}):
                continue
            if needed.marker.evaluate({"extra": ""}):
                continue
            if needed.name == "lad-reasoner":
                extras += needed.extras - seen
                seen |= needed.extras
            elif fault := _fault(needed.name, needed.specifier):
                faults.append(fault)
    if faults:
        raise UsageError(f"lad demo cannot run: {'; '.join(sorted(set(faults)))}", remedy=install_hint(_EXTRA))


def _fault(name: str, specifier: Any) -> str:
    if (installed := installed_version(name)) is None:
        return f"{name} is not installed"
    return "" if specifier.contains(installed, prereleases=True) else f"{name} is {installed}, not {specifier}"


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
