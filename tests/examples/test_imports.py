"""The examples for other frameworks use the public API alone."""

from __future__ import annotations

import ast

import lad_reasoner


def test_the_examples_import_only_public_names(repository) -> None:
    files = sorted((repository / "examples/eval").rglob("*.py"))
    assert len(files) == 2
    for file in files:
        imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        ours = [node for node in imports if (node.module or "").startswith("lad_")]
        assert [node.module for node in ours] == ["lad_reasoner"]
        assert {alias.name for node in ours for alias in node.names} <= set(lad_reasoner.__all__)
