"""Faults of YAML files, as one line; keys that stand twice, which YAML forbids and PyYAML accepts."""

from __future__ import annotations

import yaml

from lad_reasoner.support.errors import DataError

__all__ = ["describe_yaml_error", "refuse_repeated_keys"]


def describe_yaml_error(error: Exception) -> str:
    """Return what is wrong with a YAML text, with its line if that is known.

    Example:
        >>> import yaml
        >>> from lad_reasoner.support.yaml_keys import describe_yaml_error
        >>> try:
        ...     yaml.safe_load("a: [1")
        ... except yaml.YAMLError as error:
        ...     print(describe_yaml_error(error))
        expected ',' or ']', but got '<stream end>', line 1
    """
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        return error.problem + (f", line {error.problem_mark.line + 1}" if error.problem_mark else "")
    return str(error).strip().split("\n", 1)[0]


def refuse_repeated_keys(node: yaml.Node | None, where: object) -> None:
    """Refuse a composed YAML document in which a mapping has a key twice.

    Args:
        node: The document, from `yaml.compose`; None for an empty one.
        where: The file, for the message.

    Raises:
        DataError: The key, with both lines.
    """
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, yaml.CollectionNode) or id(one) in seen:
            continue
        seen.add(id(one))  # an alias may lead back
        if isinstance(one, yaml.MappingNode):
            _check(one, where)
            waiting += [part for pair in one.value for part in pair]
        else:
            waiting += one.value


def _check(mapping: yaml.MappingNode, where: object) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            problem = f"the key {key.value} stands in line {lines[name]} and again in line {line}"
            raise DataError(problem, where=where, remedy="Keep one of them")
        lines[name] = line
