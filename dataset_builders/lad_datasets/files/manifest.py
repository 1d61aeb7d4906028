"""The files next to a built file: a manifest for programs, a dataset card for people and the Hub."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from lad_datasets.sources.samples import Licence

__all__ = ["card_text", "count_rows", "digest_sources", "nest_counts", "read_object", "versions"]

#: The packages whose version can change the bytes of a build.
_PACKAGES: Final = ("lad-reasoner", "pyarrow", "pillow", "imagehash", "numpy")

_COUNTED: Final = ("dataset", "category", "kind", "label")

_CARD: Final = """\
---
license: {{ licence }}
task_categories:
- visual-question-answering
- image-text-to-text
language:
- en
tags:
- anomaly-detection
- industrial-inspection
configs:
- config_name: default
  data_files:
{%- for split, file in files.items() %}
  - split: {{ split }}
    path: {{ file }}
{%- endfor %}
---

# {{ title }}

{{ text }}

## Counts

| dataset | category | kind | label | rows |
|---|---|---|---|---|
{%- for key, count in counts %}
| {{ key | join(" | ") }} | {{ count }} |
{%- endfor %}

## Licences

{% for line in licences -%}
- {{ line }}
{% endfor -%}
{% if noncommercial %}
**NonCommercial**: {{ noncommercial | join(", ") }} may not be used commercially, and neither may this file.
{% endif %}
## Made by

{{ made_by }}
"""


def versions() -> dict[str, str]:
    """Return the version of each package that can change the bytes of a build."""
    return {package: version(package) for package in _PACKAGES}


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that an earlier command wrote; empty if the file is absent or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def count_rows(rows: Iterable[Mapping[str, str]]) -> Counter[tuple[str, ...]]:
    """Count rows by dataset, category, kind and label."""
    return Counter(tuple(row[name] for name in _COUNTED) for row in rows)


def nest_counts(counts: Counter[tuple[str, ...]]) -> list[dict[str, str | int]]:
    """Return counts as JSON objects, in key order."""
    return [{**dict(zip(_COUNTED, key, strict=True)), "rows": count} for key, count in sorted(counts.items())]


def digest_sources(sources: Mapping[str, str]) -> str:
    """Return one hex digest of many files, from the hex digest of each by its path."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(sources.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def card_text(
    *,
    title: str,
    text: str,
    files: Mapping[str, str],
    counts: Counter[tuple[str, ...]],
    licences: Mapping[str, Licence],
    made_by: str,
) -> str:
    """Return a dataset card with the Hub's front matter.

    Args:
        title: Its heading.
        text: What the data is and how to use it, in Markdown.
        files: Data file by split, relative to the card.
        counts: Rows by dataset, category, kind and label.
        licences: By dataset.
        made_by: The command.
    """
    card = Environment(autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - Markdown
    return card.from_string(_CARD).render(
        licence=_hub_licence(licences.values()),
        files=files,
        title=title,
        text=text.strip(),
        counts=sorted(counts.items()),
        licences=[f"{name}: {terms.name} {terms.url}".rstrip() for name, terms in sorted(licences.items())],
        noncommercial=sorted(name for name, terms in licences.items() if terms.commercial is False),
        made_by=f"`{made_by}`, " + ", ".join(f"{name} {number}" for name, number in versions().items()),
    )


def _hub_licence(licences: Iterable[Licence]) -> str:
    """Return the strictest licence's Hub id: what forbids most holds for the whole."""
    order = {False: 0, None: 1, True: 2}
    strictest = sorted(licences, key=lambda terms: (order[terms.commercial], terms.hub_id == "apache-2.0"))
    return strictest[0].hub_id if strictest else "other"
