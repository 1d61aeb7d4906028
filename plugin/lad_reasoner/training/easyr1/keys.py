"""EasyR1's config keys, with types and defaults: from the installed EasyR1's source, else from a shipped snapshot.

EasyR1's configuration is a tree of dataclasses under ``PPOConfig``. Importing them imports torch, so their source is
read as text instead. The same reader wrote the snapshot:

    python -m lad_reasoner.training.easyr1.keys CHECKOUT/verl > plugin/lad_reasoner/training/easyr1/easyr1_keys.json
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

__all__ = ["Key", "nearest_key", "read_snapshot", "read_source"]

SNAPSHOT: Final = "easyr1_keys.json"
ROOT_CLASS: Final = "PPOConfig"


@dataclass(frozen=True, slots=True)
class Key:
    """One config key.

    Attributes:
        name: Dotted path, such as ``data.max_pixels``.
        type: As EasyR1 annotates it, such as ``Optional[int]``.
        default: As JSON has it: tuples are lists.
        settable: False for the keys that EasyR1 computes itself.
    """

    name: str
    type: str
    default: Any
    settable: bool


def read_snapshot() -> dict[str, Key]:
    """Return the keys of the EasyR1 commit named in REQUIRED_EASYR1."""
    text = (files(__package__) / SNAPSHOT).read_text(encoding="utf-8")
    return {row["name"]: Key(**row) for row in json.loads(text)}


def read_source(package: Path) -> dict[str, Key]:
    """Return the keys of the EasyR1 whose package folder (``.../verl``) is given, without importing it.

    Raises:
        FileNotFoundError: The folder has no ``trainer/config.py``.
        KeyError: Its config has no ``PPOConfig``, or names a class that none of its config files defines.
    """
    sources = [package / "trainer" / "config.py", *sorted((package / "workers").rglob("config.py"))]
    classes = {
        node.name: node
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    return {key.name: key for key in _iter_keys(classes[ROOT_CLASS], classes, "")}


def nearest_key(name: str, keys: Mapping[str, Key]) -> str | None:
    """Return the settable key that a mistyped one most likely meant: by its last part, then by the whole path.

    Example:
        >>> nearest_key("trainer.max_step", read_snapshot())
        'trainer.max_steps'
        >>> nearest_key("actor.lr", read_snapshot())
        'worker.actor.optim.lr'
        >>> nearest_key("worker.actor.micro_batch_size", read_snapshot())
        'worker.actor.micro_batch_size_per_device_for_update'
    """
    settable, last = [key.name for key in keys.values() if key.settable], name.rpartition(".")[2]
    same_end = [key for key in settable if key.rpartition(".")[2] == last]
    longer = [key for key in settable if len(last) > 3 and key.rpartition(".")[2].startswith(last)]
    for candidates, cutoff in ((same_end, 0.0), (longer, 0.0), (settable, 0.6)):
        if matches := get_close_matches(name, candidates, n=1, cutoff=cutoff):
            return matches[0]
    return None


def _iter_keys(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef], prefix: str) -> Iterator[Key]:
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name, kind = f"{prefix}{field.target.id}", ast.unparse(field.annotation)
        if kind in classes:
            yield from _iter_keys(classes[kind], classes, f"{name}.")
        else:
            default, settable = _read_default(field.value)
            yield Key(name=name, type=kind, default=default, settable=settable)


def _read_default(value: ast.expr | None) -> tuple[Any, bool]:
    """Return the default of a field, and whether a user may set the field."""
    if isinstance(value, ast.Call):  # field(default=..., init=False) or field(default_factory=dict)
        arguments = {keyword.arg: keyword.value for keyword in value.keywords}
        default = ast.literal_eval(arguments["default"]) if "default" in arguments else {}
        settable = "init" not in arguments or bool(ast.literal_eval(arguments["init"]))
    else:
        default, settable = (None if value is None else ast.literal_eval(value)), True
    return (list(default) if isinstance(default, tuple) else default), settable


if __name__ == "__main__":  # makes the snapshot: stdout is the file
    lines = [json.dumps(asdict(key)) for key in read_source(Path(sys.argv[1])).values()]
    print("[\n" + ",\n".join(lines) + "\n]")
