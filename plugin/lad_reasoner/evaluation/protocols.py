"""Which pairs are scored.

``paper`` is what the paper's Table 1 scores (docs/protocol.md recovers it from the printed figures): normal queries
and logical anomalies; structural anomalies are left out. ``all`` scores every pair.
MMAD's questions have a protocol of their own (``mmad.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

from lad_reasoner.pairs.reader import Truth
from lad_reasoner.support.errors import UsageError

__all__ = ["PROTOCOLS", "Protocol", "select"]

Protocol = Literal["paper", "all"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)

_LEFT_OUT: Final[dict[Protocol, frozenset[str]]] = {"paper": frozenset({"structural"}), "all": frozenset()}


def select(truths: Sequence[Truth], protocol: Protocol) -> list[Truth]:
    """Return the pairs that a protocol scores, in order.

    Raises:
        UsageError: There is no such protocol, or the pairs are multiple-choice questions, which have their own.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"{protocol!r} is not a protocol", remedy=f"Use {' or '.join(PROTOCOLS)}")
    if any(truth.gold.choice is not None for truth in truths):
        problem = f"the protocol {protocol} does not score multiple-choice questions"
        raise UsageError(problem, remedy="Score them with `lad score --protocol mmad`")
    return [truth for truth in truths if truth.kind not in _LEFT_OUT[protocol]]
