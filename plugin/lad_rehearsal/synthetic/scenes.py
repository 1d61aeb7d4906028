"""Scenes: nine slots, each with a part or empty, and their defects.

A *part* is a shape in a colour; a *layout* defines the part of each slot of a product. Logical anomalies violate the
layout and are visible only by comparison; structural anomalies are blemishes on a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = [
    "BLEMISHES",
    "COLOURS",
    "DEFECT_KINDS",
    "EMPTY",
    "LOGICAL",
    "SHAPES",
    "SLOTS",
    "STRUCTURAL",
    "Layout",
    "Scene",
]
__all__ += ["break_scene", "compare", "draw_dense", "draw_layout", "draw_layouts", "part_name"]

SHAPES: Final = ("circle", "square", "triangle", "cross", "ring")
COLOURS: Final = ("red", "yellow", "green", "cyan", "blue", "purple")
PARTS: Final = len(SHAPES) * len(COLOURS)
SLOTS: Final = 9
EMPTY: Final = -1

#: `Scene.blemishes` contains indices into this tuple.
BLEMISHES: Final = ("", "scratch", "dent")

#: Share of empty slots, which makes missing and extra parts equally easy to place. Our choice.
_EMPTY_SHARE: Final = 0.35
_FEWEST, _MOST = 4, 7

Layout = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """One product.

    Attributes:
        parts: For each of the nine slots, row by row, a part id (``shape * 6 + colour``) or ``EMPTY``.
        blemishes: For each slot, an index into ``BLEMISHES``.
    """

    parts: Layout
    blemishes: Layout = (0,) * SLOTS


def part_name(part: int) -> str:
    """Return the name of a part.

    Example:
        >>> part_name(0), part_name(EMPTY)
        ('red circle', 'empty')
    """
    if part == EMPTY:
        return "empty"
    return f"{COLOURS[part % len(COLOURS)]} {SHAPES[part // len(COLOURS)]}"


def draw_layout(rng: np.random.Generator) -> Layout:
    """Return a random layout of four to seven parts, at least two of them different."""
    while True:
        filled = rng.random(SLOTS) >= _EMPTY_SHARE
        parts = tuple(int(part) for part in np.where(filled, rng.integers(PARTS, size=SLOTS), EMPTY))
        if _FEWEST <= int(filled.sum()) <= _MOST and len(set(parts)) > 2:
            return parts


def draw_layouts(count: int, *, rng: np.random.Generator, exclude: Sequence[Layout] = ()) -> list[Layout]:
    """Return ``count`` random layouts that differ from each other and from ``exclude``."""
    seen = set(exclude)
    layouts: list[Layout] = []
    while len(layouts) < count:
        layout = draw_layout(rng)
        if layout not in seen:
            seen.add(layout)
            layouts.append(layout)
    return layouts


def compare(reference: Scene, query: Scene) -> tuple[str, ...]:
    """Return the state of each slot of the query, compared with the reference.

    A blemish takes precedence; then ``missing``, ``extra``, ``swapped`` (another shape), ``recoloured``
    (the same shape in another colour), ``ok``.

    Example:
        >>> before, after = Scene((0,) * 9), Scene((EMPTY, 1, 6, *(0,) * 6), (0, 0, 0, 1, *(0,) * 5))
        >>> compare(before, after)[:5]
        ('missing', 'recoloured', 'swapped', 'scratch', 'ok')
    """
    return tuple(map(_slot_state, reference.parts, query.parts, query.blemishes))


def _slot_state(before: int, after: int, blemish: int) -> str:
    if blemish:
        return BLEMISHES[blemish]
    if before == after:
        return "ok"
    if after == EMPTY:
        return "missing"
    if before == EMPTY:
        return "extra"
    return "recoloured" if before // len(COLOURS) == after // len(COLOURS) else "swapped"


def _slots(scene: Scene, *, filled: bool) -> list[int]:
    return [slot for slot, part in enumerate(scene.parts) if (part != EMPTY) == filled]


def _pick(rng: np.random.Generator, slots: Sequence[int], count: int) -> list[int]:
    return [int(slot) for slot in rng.choice(slots, size=count, replace=False)]


def _put(scene: Scene, changes: dict[int, int]) -> Scene:
    return Scene(tuple(changes.get(slot, part) for slot, part in enumerate(scene.parts)), scene.blemishes)


def _another(part: int, rng: np.random.Generator, *, same_shape: bool) -> int:
    """Return another colour of the part's shape, or a part of another shape."""
    if same_shape:
        shape, colour = divmod(part, len(COLOURS))
        return shape * len(COLOURS) + int(colour + rng.integers(1, len(COLOURS))) % len(COLOURS)
    return int(part + rng.integers(1, len(SHAPES)) * len(COLOURS)) % PARTS


def _missing(scene: Scene, rng: np.random.Generator) -> Scene:
    return _put(scene, dict.fromkeys(_pick(rng, _slots(scene, filled=True), 1), EMPTY))


def _extra(scene: Scene, rng: np.random.Generator) -> Scene:
    return _put(scene, {slot: int(rng.integers(PARTS)) for slot in _pick(rng, _slots(scene, filled=False), 1)})


def _recoloured(scene: Scene, rng: np.random.Generator) -> Scene:
    (slot,) = _pick(rng, _slots(scene, filled=True), 1)
    return _put(scene, {slot: _another(scene.parts[slot], rng, same_shape=True)})


def _swapped(scene: Scene, rng: np.random.Generator) -> Scene:
    while True:
        one, two = _pick(rng, _slots(scene, filled=True), 2)
        if scene.parts[one] != scene.parts[two]:
            return _put(scene, {one: scene.parts[two], two: scene.parts[one]})


def _wrong_place(scene: Scene, rng: np.random.Generator) -> Scene:
    (source,), (target,) = _pick(rng, _slots(scene, filled=True), 1), _pick(rng, _slots(scene, filled=False), 1)
    return _put(scene, {source: EMPTY, target: scene.parts[source]})


def _count(scene: Scene, rng: np.random.Generator) -> Scene:
    """Add two parts of one kind, or remove two parts."""
    if rng.random() < 0.5:
        return _put(scene, dict.fromkeys(_pick(rng, _slots(scene, filled=True), 2), EMPTY))
    part = int(rng.choice([part for part in scene.parts if part != EMPTY]))
    return _put(scene, dict.fromkeys(_pick(rng, _slots(scene, filled=False), 2), part))


def _blemish(name: str) -> Callable[[Scene, np.random.Generator], Scene]:
    def apply(scene: Scene, rng: np.random.Generator) -> Scene:
        (slot,) = _pick(rng, range(SLOTS), 1)
        marks = tuple(BLEMISHES.index(name) if i == slot else mark for i, mark in enumerate(scene.blemishes))
        return Scene(scene.parts, marks)

    return apply


LOGICAL: Final[dict[str, Callable[[Scene, np.random.Generator], Scene]]] = {
    "missing_part": _missing,
    "extra_part": _extra,
    "recoloured_part": _recoloured,
    "swapped_parts": _swapped,
    "wrong_place": _wrong_place,
    "wrong_count": _count,
}
STRUCTURAL: Final = {name: _blemish(name) for name in BLEMISHES[1:]}

#: The paper's kind of each defect (``task.KINDS``).
DEFECT_KINDS: Final = {
    "missing_part": "existence",
    "extra_part": "existence",
    "recoloured_part": "color",
    "swapped_parts": "functional",
    "wrong_place": "functional",
    "wrong_count": "number",
    "scratch": "appearance",
    "dent": "appearance",
}


def break_scene(scene: Scene, defect: str, rng: np.random.Generator) -> Scene:
    """Return the scene with a defect: a key of ``LOGICAL`` or ``STRUCTURAL``."""
    return (LOGICAL | STRUCTURAL)[defect](scene, rng)


def draw_dense(scene: Scene, rng: np.random.Generator, *, share: float = 0.5) -> Scene:
    """Return the scene with each slot changed with probability ``share``, to train comparison."""
    parts, blemishes = list(scene.parts), list(scene.blemishes)
    for slot in np.flatnonzero(rng.random(SLOTS) < share):
        change = rng.random()
        if change < 0.2:
            blemishes[slot] = int(rng.integers(1, len(BLEMISHES)))
        elif parts[slot] == EMPTY:
            parts[slot] = int(rng.integers(PARTS))
        elif change < 0.4:
            parts[slot] = EMPTY
        else:
            parts[slot] = _another(parts[slot], rng, same_shape=change < 0.7)
    return Scene(tuple(parts), tuple(blemishes))
