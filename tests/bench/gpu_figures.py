"""What the bench for a GPU measures, with what, and how it shows a figure."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lad_reasoner.training.preflight.model_size import GIB


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        picture: Width and height of a training image; 896 x 448 are 401,408 pixels, 512 tokens.
        photo: Width and height of an image that `lad predict` reads from a file.
        prompt: Tokens of a GRPO prompt, two images included.
        response: Tokens of a response.
        sft: Tokens of an SFT row, two images included.
        new_tokens: Tokens of each answer of `lad predict`.
        batches: Batch sizes of `lad predict`, with the number of batches of each.
        steps: Micro steps of the GRPO update that are measured; the others are scaled.
    """

    picture: tuple[int, int]
    photo: tuple[int, int]
    prompt: int
    response: int
    sft: int
    new_tokens: int
    batches: tuple[tuple[int, int], ...]
    steps: int


SIZES: Final = {
    "3b": Sizes((896, 448), (1600, 1280), 1280, 1024, 1536, 256, ((16, 4), (64, 2)), 24),
    "tiny": Sizes((112, 56), (160, 128), 160, 32, 192, 8, ((2, 2),), 2),
}


@dataclass(frozen=True)
class Figure:
    """One line of the table; ``estimated`` is None where `easyr1 check` has no such estimate."""

    name: str
    measured: float | None
    unit: str
    estimated: float | None = None
    note: str = ""

    def __str__(self) -> str:
        def show(value: float | None, missing: str) -> str:
            return missing if value is None else f"{value:.2f}"

        ratio = self.measured / self.estimated if self.measured is not None and self.estimated else None
        columns = f"{show(self.measured, 'not measured'):>12} {show(self.estimated, '-'):>9} {show(ratio, '-'):>6}"
        return f"{self.name:<34} {columns}  {self.unit:<7} {self.note}".rstrip()


@dataclass
class Measured:
    """Seconds, and the most GiB that PyTorch allocated, reserved, and added to what was there; None on a CPU."""

    seconds: float = 0.0
    peak: float | None = None
    reserved: float | None = None
    added: float | None = None

    @property
    def note(self) -> str:
        """What PyTorch reserved, in words."""
        return "" if self.reserved is None else f"{self.reserved:.1f} GiB reserved"


@contextmanager
def measure(device: str) -> Iterator[Measured]:
    """Measure what is done inside."""
    import torch

    gpu, found = device.startswith("cuda"), Measured()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / GIB
    start = time.perf_counter()
    yield found
    if gpu:
        torch.cuda.synchronize()
        found.peak = torch.cuda.max_memory_allocated() / GIB
        found.reserved = torch.cuda.max_memory_reserved() / GIB
        found.added = found.peak - before
    found.seconds = time.perf_counter() - start


def free(device: str) -> None:
    import torch

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


@dataclass
class Bench:
    """What the parts share, and what they found."""

    sizes: Sizes
    shape: str
    device: str
    folder: Path
    end: float
    figures: list[Figure] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, *figure: Any) -> None:
        """Print a figure and keep it."""
        self.figures.append(Figure(*figure))
        print(self.figures[-1], flush=True)

    def run(self, name: str, part: Callable[[Bench], None]) -> None:
        """Run a part; what it raises is kept, because the other parts are still wanted."""
        start = time.monotonic()
        if start > self.end:
            self.failed[name] = "no time was left"
            return
        try:
            part(self)
        except Exception as error:  # any fault, out of memory above all
            self.failed[name] = f"{type(error).__name__}: {error}"
            print(f"{name}: failed: {self.failed[name][:500]}", flush=True)
        free(self.device)
        print(f"({name}: {time.monotonic() - start:.0f} s)", flush=True)

    def times(self, count: int, work: Callable[[], object]) -> int:
        """Work ``count`` times, fewer when the time is over, at least once; return how often."""
        done = 0
        while done < count and not (done and time.monotonic() > self.end):
            work()
            done += 1
        return done
