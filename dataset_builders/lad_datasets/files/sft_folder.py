"""The folder that LLaMA-Factory reads: ``dataset_info.json`` names its data files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

__all__ = ["DATASET_INFO", "is_sft_data", "sft_files"]

DATASET_INFO: Final = "dataset_info.json"


def is_sft_data(path: Path) -> bool:
    """Return whether a path is such a folder, its index, or a file that the index names."""
    folder = path if path.is_dir() else path.parent
    if not (folder / DATASET_INFO).is_file():
        return False
    return path.is_dir() or path.name == DATASET_INFO or path.name in sft_files(folder).values()


def sft_files(folder: Path) -> dict[str, str]:
    """Return the file name of each dataset; nothing where the index is malformed."""
    try:
        info = json.loads((folder / DATASET_INFO).read_text(encoding="utf-8"))
        return {name: str(entry["file_name"]) for name, entry in info.items()}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError, LookupError):
        return {}
