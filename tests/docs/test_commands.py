"""Every command that README, docs and help pages show is accepted; those of the README run, on small data."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from lad_datasets.project.project import create_project
from lad_reasoner.commands import easyr1, lad
from tests.docs.markdown import iter_blocks, iter_commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]

#: A command that is not run here, and why.
NOT_RUN = {
    "lad serve": "runs until it is interrupted; tests/inference/test_serve.py",
    "lad annotate --mmad": "needs a server; tests/annotate",
    "lad demo": "takes minutes; tests/e2e/test_demo.py",
    "llamafactory-cli": "needs a GPU; tests/e2e/test_demo.py trains the tiny model",
    "easyr1 train": "needs a GPU; tests/e2e/test_demo.py trains the tiny model",
    "easyr1 rehearse": "takes a minute; tests/trainers/rehearse",
    "easyr1 merge": "needs the checkpoint of a run; tests/trainers/test_merge.py",
    "lad plot": "needs the log of a run; tests/trainers/test_curves.py",
}

#: Page, number of its commands that run at least, and the report that they make.
OWN_PRODUCT = ("docs/own-product.md", 14, "my_project/report")

#: Models that the packaged tiny one stands for.
MODELS = "Qwen/Qwen2.5-VL-3B-Instruct|models/lad-reasoner|my_project/(sft-)?model$"

#: Exit codes other than 0: `easyr1 check` reports that this machine has no GPU.
EXIT_CODES = {"easyr1 check": (0, 1)}


def _ours(line: str) -> list[str]:
    """Return the words of a `lad` or `easyr1` command up to the first shell operator; none for other lines."""
    line = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line)
    if not line.startswith(("lad ", "easyr1 ")):
        return []
    words = shlex.split(re.split(r" (?:\||>|&&|&|;)", line)[0])
    synopsis = any(word == "..." or word.startswith("[") for word in words)
    return [] if synopsis else words


def _parse(words: list[str]) -> str:
    """Parse a command as typer does, without running it, and return the error, if any."""
    command = typer.main.get_command({"lad": lad, "easyr1": easyr1}[words[0]].build_app())
    name, rest = words[0], words[1:]
    try:
        context = command.make_context(name, list(rest))
        while hasattr(command, "commands"):
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            context = command.make_context(name, list(rest), parent=context)
    except Exception as error:
        return "" if type(error).__name__ == "Exit" else str(error)  # --help and --version exit
    return ""


def _documented() -> dict[str, list[str]]:
    found = {}
    for page in PAGES:
        for block in iter_blocks(page):
            for line in iter_commands(block):
                if words := _ours(line):
                    found[f"{page.relative_to(ROOT)}: {line}"] = words
    return found


DOCUMENTED = _documented()


@pytest.mark.parametrize("words", DOCUMENTED.values(), ids=DOCUMENTED)
def test_a_documented_command_is_accepted(words: list[str]) -> None:
    assert _parse(words) == ""


def test_many_commands_are_documented_and_a_wrong_one_is_found() -> None:
    assert len(DOCUMENTED) > 40
    assert "no-such-option" in _parse(["lad", "ask", "--no-such-option"])
    assert _parse(["lad", "no-such-verb"]) != ""


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.parametrize(("page", "least", "made"), [("README.md", 12, "report"), OWN_PRODUCT])
def test_a_pages_commands_run_in_order(page: str, least: int, made: str, workplace: Path, base_model: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    ran = 0
    for block in iter_blocks(ROOT / page):
        for line in iter_commands(block) if block.language == "sh" else ():
            verb = " ".join(line.split()[:2])
            if line.startswith(tuple(NOT_RUN)):
                continue
            words = [re.sub(MODELS, str(base_model), word) for word in shlex.split(line)]
            done = subprocess.run(words, cwd=workplace, env=environment, check=False, capture_output=True, text=True)
            assert done.returncode in EXIT_CODES.get(verb, (0,)), f"{line}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
            ran += 1
    assert ran >= least
    assert (workplace / made / "index.html").is_file()


def test_the_page_for_own_photos_has_the_commands_of_lad_init(workplace: Path, tmp_path: Path) -> None:
    plan = create_project(workplace / "my_products", tmp_path / "my_project").plan
    own = [line for block in iter_blocks(plan) for line in iter_commands(block)]
    page = [line for block in iter_blocks(ROOT / OWN_PRODUCT[0]) for line in iter_commands(block)]

    def plain(line: str) -> str:
        return re.sub(r"global_step_\d+", "global_step_N", line.replace(f"{tmp_path}/", ""))

    assert len(own) > 15
    assert [line for line in map(plain, own) if line not in map(plain, page)] == []


def test_the_install_lines_name_extras_that_plain_pip_can_combine() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = [line for page in PAGES for line in re.findall(r"pip install '[^'\[]*\[([^\]]+)\]'", page.read_text())]
    assert len(lines) > 5
    for line in lines:
        named = set(line.split(","))
        assert named <= set(extras)
        assert not ("serve" in named and named & {"sft", "cpu"}), f"{line}: they pin different versions of gradio"
        if named & {"vllm", "easyr1"}:
            assert len(named) == 1, f"{line}: needs its own environment"
