"""A Hugging Face model folder as the checks see it: its JSON files and the headers of its weights. No torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from lad_reasoner.models.weights import Tensor, read_header
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.files import write_json

__all__ = ["ABSENT", "INDEX", "Edit", "ModelFolder", "apply_edits"]

INDEX: Final = "model.safetensors.index.json"

#: The index of a model with a hundred shards has a few MB.
_LARGEST_DOCUMENT: Final = 64 << 20


class _Absent:
    def __repr__(self) -> str:
        return "absent"


#: The value of a key that is not there; as an edit's value, it removes the key.
ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a JSON file.

    Attributes:
        file: Its name in the folder.
        path: Keys from the outermost to the one that is set; empty for a file that is made.
        value: The new value, or ABSENT.
    """

    file: str
    path: tuple[str, ...]
    value: Any

    def __str__(self) -> str:
        if not self.path:
            return f"{self.file}: made"
        if self.value is ABSENT:
            return f"{self.file}: {'.'.join(self.path)} removed"
        text = json.dumps(self.value, ensure_ascii=False)
        return f"{self.file}: {'.'.join(self.path)} = {text if len(text) < 80 else text[:77] + '...'}"


@dataclass(frozen=True)
class ModelFolder:
    """What is in a folder, read when it is asked for.

    Attributes:
        broken: Files that could not be read, each with the reason; filled as they are met.
    """

    path: Path
    broken: dict[str, str] = field(default_factory=dict)
    _documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Return whether this file is there."""
        return (self.path / name).is_file()

    def document(self, name: str) -> dict[str, Any]:
        """Return a JSON file; empty where it is absent or broken."""
        if name not in self._documents:
            self._documents[name] = self._read(name)
        return self._documents[name]

    def get(self, name: str, *path: str) -> Any:
        """Return a value of a JSON file, or ABSENT."""
        value: Any = self.document(name)
        for key in path:
            if not isinstance(value, dict) or key not in value:
                return ABSENT
            value = value[key]
        return value

    @cached_property
    def shards(self) -> dict[str, dict[str, Tensor]]:
        """Weight file to its weights; the files that transformers would read."""
        shards: dict[str, dict[str, Tensor]] = {}
        for name in self.weight_files:
            try:
                shards[name] = read_header(self.path / name)
            except (DataError, OSError) as fault:
                self.broken[name] = fault.problem if isinstance(fault, DataError) else str(fault)
        return shards

    def unreadable(self) -> dict[str, str]:
        """Return ``broken`` after the header of every weight file was read."""
        return self.broken if self.shards is not None else {}

    @property
    def weight_files(self) -> list[str]:
        """The safetensors files that are there."""
        return sorted(file.name for file in self.path.glob("*.safetensors"))

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Name to weight, over all files."""
        return {name: tensor for shard in self.shards.values() for name, tensor in shard.items()}

    def _read(self, name: str) -> dict[str, Any]:
        if not self.has(name):
            return {}
        try:
            return _read_object(self.path / name)
        except RecursionError:
            self.broken[name] = "no JSON object: nested too deeply"
        except (ValueError, OSError) as fault:
            self.broken[name] = f"no JSON object: {str(fault)[:120]}"
        return {}


def _read_object(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _LARGEST_DOCUMENT:
        raise ValueError(f"larger than {_LARGEST_DOCUMENT:,} bytes")
    tree = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(tree, dict):
        raise ValueError(f"a {type(tree).__name__} in place of an object")  # noqa: TRY004 - the file is at fault
    return tree


def apply_edits(folder: Path, edits: Iterable[Edit]) -> list[Path]:
    """Change JSON files, each as a whole or not at all; return the copies of what they were.

    A copy is named ``<file>.bak``, or with a number when there is one already: none is ever replaced.

    Raises:
        DataError: The folder cannot be written.
    """
    by_file: dict[str, list[Edit]] = {}
    for edit in edits:
        by_file.setdefault(edit.file, []).append(edit)
    copies = []
    for name, own in by_file.items():
        file = folder / name
        tree = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for edit in own:
            _apply(tree, edit)
        if file.is_file():
            copies.append(_free_name(file))
            shutil.copy2(file, copies[-1])
        write_json(file, tree)
    return copies


def _apply(tree: dict[str, Any], edit: Edit) -> None:
    if not edit.path:
        tree.update(edit.value)
        return
    *parents, last = edit.path
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
    if edit.value is ABSENT:
        node.pop(last, None)
    else:
        node[last] = edit.value


def _free_name(file: Path) -> Path:
    number = 0
    while (copy := file.with_name(f"{file.name}.bak{number or ''}")).exists():
        number += 1
    return copy
