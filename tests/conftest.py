"""Fixtures shared by every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair; speed is measured in tests/bench.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REPOSITORY = Path(__file__).resolve().parents[1]

#: Files whose slow tests start Ray. They share a worker: a second run would join the cluster of the first.
STARTS_RAY = ("tests/contract/test_easyr1.py", "tests/contract/test_verl_cpu.py", "tests/e2e/", "tests/trainers/")

#: Files whose slow tests take minutes. They start first: no worker is left alone with one at the end.
LONG = (*STARTS_RAY, "tests/inference/test_vllm_backend.py", "tests/annotate/", "tests/docs/", "tests/examples/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests that take minutes first."""

    def place(item: pytest.Item) -> int:
        starts = LONG if item.get_closest_marker("slow") else ()
        return next((place for place, start in enumerate(starts) if item.nodeid.startswith(start)), len(LONG))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With ``--dist loadgroup``, keep the tests of a file together, and all that start Ray."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", maxsplit=1)[0]
            return "ray" if file.startswith(STARTS_RAY) else file

    return Scheduler(config, log) if config.option.dist == "loadgroup" else None


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
