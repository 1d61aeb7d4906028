"""Which pairs are scored.

``paper`` is what the paper's Table 1 scores (docs/protocol.md recovers it from the printed figures): normal queries
and logical anomalies; structural anomalies are left out. ``all`` scores every pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

from lad_reasoner.pairs_reader import Truth

__all__ = ["PROTOCOLS", "Protocol", "select"]

Protocol = Literal["paper", "all"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)

_LEFT_OUT: Final[dict[Protocol, frozenset[str]]] = {"paper": frozenset({"structural"}), "all": frozenset()}


def select(truths: Sequence[Truth], protocol: Protocol) -> list[Truth]:
    """Return the pairs that a protocol scores, in order."""
    return [truth for truth in truths if truth.kind not in _LEFT_OUT[protocol]]
