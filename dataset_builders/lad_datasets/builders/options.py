"""How pairs are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lad_datasets.files.images import Encoding
from lad_datasets.pairing.reference import Policy
from lad_reasoner.task.gold import YES_NO

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How pairs are made; what of it can change the output is recorded in the manifest.

    Attributes:
        reference: Policy by which references are chosen.
        seed: Random seed.
        shots: References per pair.
        votes: Pairs per query, each with references of its own.
        embed: Store image bytes; otherwise absolute paths.
        encoding: How images are shrunk.
        answers: The form of the answers: "yes-no", or "classes".
        masks: Root of the masks; asks for boxes. None asks for none.
        shard_mb: Cut the output into files of about this many megabytes, in a folder; None makes one file.
        workers: Threads. It does not change the output.
        skip_bad: Skip and name unreadable images instead of failing.
        overwrite: Replace an earlier build.
    """

    reference: Policy = "random"
    seed: int = 0
    shots: int = 1
    votes: int = 1
    embed: bool = True
    encoding: Encoding = field(default_factory=Encoding)
    answers: str = YES_NO
    masks: Path | None = None
    shard_mb: int | None = None
    workers: int = 1
    skip_bad: bool = False
    overwrite: bool = False

    @property
    def shots_in_words(self) -> str:
        """The references of a pair, for a card."""
        return "a normal image" if self.shots == 1 else f"{self.shots} normal images"

    def recorded(self) -> dict[str, Any]:
        """Return what can change the output; of the masks only whether boxes are asked for."""
        kept = {key: value for key, value in asdict(self).items() if key not in {"workers", "skip_bad", "overwrite"}}
        return kept | {"masks": self.masks is not None}
