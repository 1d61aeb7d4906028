"""Fixtures shared by every test."""

from __future__ import annotations

import os

# Before anything imports torch or numpy: two test workers share two cores, and at the size of the tests' models the
# threads of one operation wait for each other five times as long as they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair; speed is measured in tests/bench.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REPOSITORY = Path(__file__).resolve().parents[1]

#: Files whose slow tests take minutes. They start first: no worker is left alone with one at the end.
LONG = (
    "tests/e2e/",
    "tests/contract/test_verl_cpu.py",
    "tests/trainers/",
    "tests/inference/test_vllm_backend.py",
    "tests/annotate/",
    "tests/contract/",
    "tests/docs/",
    "tests/examples/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests that take minutes first."""

    def place(item: pytest.Item) -> int:
        starts = LONG if item.get_closest_marker("slow") else ()
        return next((place for place, start in enumerate(starts) if item.nodeid.startswith(start)), len(LONG))

    items.sort(key=place)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real sample images and dataset indexes: beside the checkout, or where LAD_SHARED_DATA says."""
    folder = Path(os.environ.get("LAD_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no sample data: {folder} is absent (set LAD_SHARED_DATA to the folder with real/ and facts/)")
    return folder
