"""The command line of the `easyr1` command: EasyR1's own grammar, checked before anything heavy is imported.

``config=FILE`` overrides EasyR1's defaults, ``key=value`` words override FILE; a key that EasyR1 does not have, or a
value of the wrong type, is an error that names the key. FILE is a YAML, or a script in the manner of EasyR1's examples
that starts ``python -m verl.trainer.main config=FILE key=value ...``; the script is read, not run. Paths become
absolute, because the trainers' workers run in folders of their own.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, make_dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.yaml_keys import describe_yaml_error, refuse_repeated_keys
from lad_reasoner.training.easyr1.keys import Key, nearest_key, read_snapshot, read_source
from lad_reasoner.training.installed import Trainer

__all__ = ["EasyR1Config", "load_config", "read_keys", "resolve_path"]

#: EasyR1's annotations as types that OmegaConf checks values against.
_TYPES: Final[Mapping[str, Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "Optional[str]": str | None,
    "Optional[int]": int | None,
    "Optional[float]": float | None,
    "dict": dict[str, Any],
    "dict[str, Any]": dict[str, Any],
    "tuple[float, float]": tuple[float, float],
    "Tuple[str]": tuple[str],
}

#: Keys whose value is a path on this machine, if it is given and exists.
PATH_KEYS: Final = (
    "data.image_dir",
    "data.format_prompt",
    "data.override_chat_template",
    "worker.actor.model.model_path",
    "worker.actor.model.tokenizer_path",
    "worker.critic.model.model_path",
    "worker.critic.model.tokenizer_path",
    "trainer.load_checkpoint_path",
    "trainer.ray_timeline",
)

#: How EasyR1's example scripts start it.
SCRIPT_START: Final = "python -m verl.trainer.main"

#: Values that a file may stand for, aliases followed; EasyR1 has some 190 keys.
LARGEST_CONFIG: Final = 10_000

NOT_A_CONFIG: Final = "this is not an EasyR1 config, which has the keys data, worker, algorithm and trainer"


@dataclass(frozen=True, slots=True)
class EasyR1Config:
    """A complete EasyR1 configuration.

    Attributes:
        values: Dotted key to value, for every key that a user may set.
        given: The keys that the file or the command line set.
        source: The file, or None.
        keys: The keys of EasyR1 that it was checked against, by name.
        structured: Whether rollouts are held to the answer template: an option of the command, which is no key.
    """

    values: Mapping[str, Any]
    given: frozenset[str]
    source: Path | None
    keys: Mapping[str, Key]
    structured: bool = False

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def run_dir(self) -> Path:
        """The checkpoint folder: logs, metrics and checkpoints of the run."""
        return Path(self["trainer.save_checkpoint_path"])

    def replace(self, **changes: object) -> EasyR1Config:
        """Return a copy with other values; ``__`` in a name stands for a dot."""
        dotted = {name.replace("__", "."): value for name, value in changes.items()}
        return replace(self, values={**self.values, **dotted}, given=self.given | set(dotted))

    def as_tree(self) -> dict[str, Any]:
        """Return the configuration as EasyR1's YAML nests it."""
        return _nest(self.values)


def read_keys(trainer: Trainer | None = None) -> dict[str, Key]:
    """Return EasyR1's keys: the installed EasyR1's, else those of the snapshot."""
    if trainer is not None and trainer.name == "easyr1":
        return read_source(trainer.package)
    return read_snapshot()


def load_config(
    words: Sequence[str], keys: Mapping[str, Key] | None = None, *, structured: bool = False
) -> EasyR1Config:
    """Read ``config=FILE key=value ...`` against EasyR1's keys, by default the snapshot's.

    Raises:
        UsageError: A word is not ``key=value``, a key is unknown, or a value has the wrong type.
        DataError: The file is missing or is not YAML.
    """
    keys = read_snapshot() if keys is None else keys
    for word in words:
        if "=" not in word or word.startswith("-"):
            raise UsageError(f"{word} is not of the form key=value", remedy="See `easyr1 --help`")
    with _translated_errors("command line", keys):
        given = OmegaConf.from_dotlist(list(words))
    source = _existing(str(given.pop("config") or "")) if "config" in given else None
    layers = [given] if source is None else [*_read_layers(source, keys), given]
    names = {name for layer in layers for name in _iter_leaves(layer, set(keys))}
    _refuse_unknown(names, keys)
    with _translated_errors(source or "command line", keys):
        merged = OmegaConf.merge(OmegaConf.structured(_dataclass("EasyR1", _nest(keys))), *layers)
        tree = OmegaConf.to_container(merged, resolve=True)
    values = {name: _get(tree, name) for name, key in keys.items() if key.settable}
    return EasyR1Config(_resolve_paths(values), frozenset(names), source, keys, structured)


def resolve_path(path: str) -> Path:
    """Return a path of a config as an absolute one: from here, else this package's own file of that name."""
    local = Path(path).expanduser()
    if not local.exists():
        package = Path(str(files("lad_reasoner")))
        # A wheel holds the examples inside the package, a checkout next to its source roots.
        homes = {
            "plugin/lad_reasoner/": [package],
            "examples/": [package / "examples", package.parents[1] / "examples"],
        }
        for prefix, places in homes.items():
            for shipped in (place / path.removeprefix(prefix) for place in places if path.startswith(prefix)):
                if shipped.exists():
                    return shipped
    return local.absolute()


def _existing(name: str) -> Path:
    """Return the path of a config as it was named, or the shipped example of that name.

    Raises:
        UsageError: There is no such file.
    """
    path = Path(name) if Path(name).is_file() else resolve_path(name)
    if not path.is_file():
        raise UsageError("no such file", where=name, remedy="Give config=FILE the path of an EasyR1 config")
    return path


def _read_layers(path: Path, keys: Mapping[str, Key]) -> list[DictConfig]:
    """Return a YAML's values, or a script's base config and overrides."""
    if path.suffix.lower() != ".sh":
        return [_read_yaml(path)]
    with _translated_errors(path, keys):
        given = OmegaConf.from_dotlist(_script_words(path))
    base = given.pop("config", None)
    if base is None or str(base).endswith(".sh"):
        raise DataError(f"the script must name a YAML, {SCRIPT_START} config=FILE", where=path)
    return [_read_yaml(_existing(str(base))), given]


def _script_words(path: Path) -> list[str]:
    """Return the ``key=value`` words with which a script starts EasyR1.

    Raises:
        DataError: The script does something else, or uses shell variables.
    """
    try:
        words = shlex.split(path.read_text(encoding="utf-8").replace("\\\n", " "), comments=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"this is not a shell script: {error}", where=path) from error
    if "verl.trainer.main" not in words:
        raise DataError(f"the script does not start {SCRIPT_START}", where=path)
    words = [word for word in words[words.index("verl.trainer.main") + 1 :] if word != "$@"]
    if strange := next((word for word in words if "=" not in word or "$" in word.replace("${", "")), None):
        raise DataError(f"{strange} is not of the form key=value, without shell variables", where=path)
    return words


def _read_yaml(path: Path) -> DictConfig:
    try:
        # OmegaConf copies an alias wherever it stands: a few lines of them would fill the memory.
        node = yaml.compose(path.read_bytes())
        refuse_repeated_keys(node, path)
        if _count_nodes(node, {}) > LARGEST_CONFIG:
            raise DataError("its YAML aliases stand for too many values", where=path)
        loaded = OmegaConf.load(path)
    except RecursionError as error:
        raise DataError("its YAML is nested too deeply", where=path) from error
    except OSError as error:  # OmegaConf raises it for a lone number or text, too
        raise DataError(error.strerror or NOT_A_CONFIG, where=path) from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, AttributeError, LookupError) as error:
        raise DataError(f"this is not YAML: {describe_yaml_error(error)}", where=path) from error
    if not isinstance(loaded, DictConfig):
        raise DataError(NOT_A_CONFIG, where=path)
    return loaded


def _count_nodes(node: Any, counted: dict[int, float]) -> float:
    """Return how many values a YAML node stands for, aliases followed; infinitely many if it holds itself."""
    if id(node) not in counted:
        counted[id(node)] = math.inf
        value = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for pair in value for part in pair] if isinstance(node, yaml.MappingNode) else value
        counted[id(node)] = 1 + sum(_count_nodes(part, counted) for part in parts)
    return counted[id(node)]


@contextmanager
def _translated_errors(where: object, keys: Mapping[str, Key]) -> Iterator[None]:
    """Turn OmegaConf's errors into ours, with the type that EasyR1 declares."""
    try:
        yield
    except ValidationError as error:
        key = keys.get(error.full_key or "")
        kind = f" (EasyR1 declares {key.type})" if key else ""
        raise UsageError(f"{describe_yaml_error(error)}{kind}", where=error.full_key or where) from error
    except RecursionError as error:
        raise UsageError("the value is nested too deeply", where=where) from error
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, ArithmeticError) as error:
        raise UsageError(describe_yaml_error(error), where=where) from error


def _refuse_unknown(names: Iterable[str], keys: Mapping[str, Key]) -> None:
    """Refuse keys that a user cannot set: unknown ones, groups of keys, and those that EasyR1 computes.

    Raises:
        UsageError: It names every such key.
    """
    faults = [f"{name}: {fault}" for name in sorted(names) if (fault := _fault_of(name, keys))]
    if faults:
        raise UsageError("; ".join(faults))


def _fault_of(name: str, keys: Mapping[str, Key]) -> str | None:
    """Return why a user cannot set a key, or None."""
    if name in keys:
        return None if keys[name].settable else "EasyR1 computes this key itself; remove it"
    if member := next((known for known in keys if known.startswith(f"{name}.")), None):
        return f"this is a group of keys, such as {member}"
    hint = nearest_key(name, keys)
    return "EasyR1 has no such key" + (f", did you mean {hint}?" if hint else "")


def _iter_leaves(node: DictConfig, known: set[str], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of what is set; a free dict is one leaf."""
    for part in node:
        name = f"{prefix}{part!s}"
        value = node._get_node(part)  # noqa: SLF001 - reading it must not resolve interpolations
        if name not in known and isinstance(value, DictConfig) and not value._is_none():  # noqa: SLF001
            yield from _iter_leaves(value, known, f"{name}.")
        else:
            yield name


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted name as a tree."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _dataclass(name: str, tree: Mapping[str, Any]) -> type:
    """Build the dataclass that OmegaConf checks a tree of keys against."""
    members: list[tuple[str, Any, Any]] = []
    for part, node in tree.items():
        if isinstance(node, Key):
            default = tuple(node.default) if node.type.lower().startswith("tuple") else node.default
            members.append((part, _TYPES[node.type], field(default_factory=partial(copy, default))))
        else:
            group = _dataclass(part, node)
            members.append((part, group, field(default_factory=group)))
    return make_dataclass(name, members)


def _get(tree: Any, name: str) -> Any:
    for part in name.split("."):
        tree = tree[part]
    return tree


def _resolve_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Make paths absolute, as EasyR1 does, and fill in what it derives from other keys."""
    resolved = dict(values)
    for key in PATH_KEYS:
        if (value := values[key]) is not None and (path := resolve_path(value)).exists():
            resolved[key] = str(path)
    for key in ("data.train_files", "data.val_files"):
        path, at, split = values[key].partition("@")
        if path and (found := resolve_path(path)).exists():
            resolved[key] = f"{found}{at}{split}"
    if (reward := values["worker.reward.reward_function"]) is not None:
        path, colon, function = reward.rpartition(":") if ":" in reward else (reward, ":", "main")
        resolved["worker.reward.reward_function"] = f"{resolve_path(path)}{colon}{function}"
    for role in ("actor", "critic"):
        model = f"worker.{role}.model"
        resolved[f"{model}.tokenizer_path"] = resolved[f"{model}.tokenizer_path"] or resolved[f"{model}.model_path"]
    folder = values["trainer.save_checkpoint_path"]
    if folder is None:
        folder = str(Path("checkpoints") / values["trainer.project_name"] / values["trainer.experiment_name"])
    resolved["trainer.save_checkpoint_path"] = str(Path(folder).expanduser().absolute())
    return resolved
