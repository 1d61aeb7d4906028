"""Dataset builders: image folders to reference/query pairs, QA, parquet and LLaMA-Factory data.

Each public name is imported on first use; docs/python.md shows them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lad_datasets.api import Build, build_grpo, build_loco, build_mmad, build_sft, check
    from lad_datasets.builders.options import Options
    from lad_datasets.checks.check import CheckOptions, CheckReport
    from lad_datasets.files.images import Encoding

__all__ = [
    "Build",
    "CheckOptions",
    "CheckReport",
    "Encoding",
    "Options",
    "build_grpo",
    "build_loco",
    "build_mmad",
    "build_sft",
    "check",
]

#: Where the names live that are not in `lad_datasets.api`.
_HOME_OF = {
    "CheckOptions": "checks.check",
    "Encoding": "files.images",
    "Options": "builders.options",
    "CheckReport": "checks.check",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
