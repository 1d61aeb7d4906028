"""Files that the pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    f"/{path.relative_to(ROOT)}"
    for folder in ("constraints", "docs", "examples", "plugin", "dataset_builders", "tests")
    for path in (ROOT / folder).rglob("*")
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_NAMED = re.compile(r"`((?:[\w.-]+/)+[\w.-]*\w\.(?:py|yaml|json|jinja|md|toml|txt))`")
_LINKED = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"")


def _named() -> list[tuple[str, str]]:
    return [(page.name, name) for page in PAGES for name in _NAMED.findall(page.read_text()) if "NAME" not in name]


def _linked() -> list[tuple[Path, str]]:
    found = [(page, match[0] or match[1]) for page in PAGES for match in _LINKED.findall(page.read_text())]
    return [(page, target) for page, target in found if target]


def test_every_link_of_a_page_leads_to_a_file() -> None:
    links = _linked()
    assert len(links) > 30
    assert [(page.name, target) for page, target in links if not (page.parent / target).exists()] == []


#: Files that a run or a user makes, not the repository.
MADE = (
    "data/",
    "demo-out/",
    "runs/",
    "qa/",
    "report/",
    "models/",
    "evaluation/examples/",
    "attempts/",
    "my_product",
    "my_project/",
    "lora_adapter/",
)


@pytest.mark.parametrize(("page", "name"), _named())
def test_a_named_file_exists(page: str, name: str) -> None:
    if name.startswith(MADE):
        pytest.skip("made by a run")
    assert any(path.endswith(f"/{name}") for path in FILES), f"{page} names {name}"


def test_modules_that_the_code_names_exist() -> None:
    code = [path for folder in ("plugin", "dataset_builders") for path in (ROOT / folder).rglob("*.py")]
    named = {(path.name, name) for path in code for name in re.findall(r"`([\w/]+\.py)`", path.read_text())}
    named.discard(("keys.py", "trainer/config.py"))  # EasyR1's
    assert len(named) > 5
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name[1]}") for path in FILES)] == []
