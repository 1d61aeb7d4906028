"""One name, one class: a reader who searches for a public class finds a single definition."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_public_class_names_are_unique_across_the_packages() -> None:
    places = defaultdict(list)
    for source in ("plugin", "dataset_builders"):
        for path in (ROOT / source).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 100
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
