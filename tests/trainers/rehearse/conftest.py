"""Rehearsing every shipped config takes a quarter of an hour: only where it is asked for."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "rehearsal" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="every shipped config is rehearsed by `pytest -m rehearsal` (10 minutes)")
    for item in items:
        if item.get_closest_marker("rehearsal"):
            item.add_marker(skip)
