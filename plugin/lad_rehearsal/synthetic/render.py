"""Render scenes in batches, each image with random place, size, hue, light and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from lad_rehearsal.synthetic.scenes import BLEMISHES, COLOURS, EMPTY, SHAPES, SLOTS, Scene

__all__ = ["RenderedScenes", "render"]

Floats = npt.NDArray[np.float32]
Pixel = TypeVar("Pixel", bound=np.generic)

#: 0 to 255; hues about 60 degrees apart, so that a jittered hue stays nearest to its original.
_PALETTE: Final = np.array(
    [(205, 45, 45), (215, 195, 40), (50, 160, 60), (45, 185, 200), (50, 75, 195), (165, 60, 180)], dtype=np.float32
)
_BACKGROUND: Final = np.array((198, 194, 186), dtype=np.float32)
_FRAME: Final = 45.0
_NOISE: Final = 7.0

#: Width of the frame as a share of a slot (3 px of 28). Positions in a transformer are relative; the frame makes the
#: nine slots distinguishable.
_FRAME_SHARE: Final = 3 / 28


@dataclass(frozen=True, slots=True)
class RenderedScenes:
    """A batch of N images.

    Attributes:
        images: uint8 RGB of shape (N, size, size, 3).
        marks: uint8 of shape (N, size, size); a value other than 0 marks the blemish ``BLEMISHES[value]``.
    """

    images: npt.NDArray[np.uint8]
    marks: npt.NDArray[np.uint8]


#: Signed distance to a shape's edge, positive inside, in units of the part's radius.
_SHAPE_FUNCTIONS: Final[dict[str, Callable[[Floats, Floats], Floats]]] = {
    "circle": lambda u, v: 1 - np.hypot(u, v),
    "square": lambda u, v: np.float32(0.88) - np.maximum(abs(u), abs(v)),
    "triangle": lambda u, v: np.minimum(np.float32(0.8) - v, (v + 1) * np.float32(0.447) - abs(u) * np.float32(0.894)),
    "cross": lambda u, v: np.minimum(np.float32(0.33) - np.minimum(abs(u), abs(v)), 1 - np.maximum(abs(u), abs(v))),
    "ring": lambda u, v: np.float32(0.27) - abs(np.hypot(u, v) - np.float32(0.73)),
}
assert tuple(_SHAPE_FUNCTIONS) == SHAPES
assert len(_PALETTE) == len(COLOURS)


def render(scenes: Sequence[Scene], *, rng: np.random.Generator, size: int = 84) -> RenderedScenes:
    """Render scenes.

    Args:
        scenes: N scenes.
        rng: Source of randomness; the same state gives the same bytes.
        size: Edge of an image in pixels, a multiple of 3 (of 28 if Qwen2.5-VL should not resize it).
    """
    parts = np.array([scene.parts for scene in scenes])
    blemishes = np.array([scene.blemishes for scene in scenes])
    cell = size // 3
    background = (_BACKGROUND + rng.uniform(-10, 10, (len(scenes), 1, 1, 1, 3))).astype(np.float32)
    cells = np.broadcast_to(background, (len(scenes), SLOTS, cell, cell, 3)).copy()
    for shape, distance in enumerate(_SHAPE_FUNCTIONS.values()):
        _draw_parts(cells, (parts != EMPTY) & (parts // len(COLOURS) == shape), parts, distance, rng)
    marks = np.zeros(cells.shape[:-1], dtype=np.uint8)
    for index in range(1, len(BLEMISHES)):
        _draw_blemishes(cells, marks, blemishes == index, index, rng)
    return RenderedScenes(_develop(_join(cells), rng), _join(marks))


def _grid(cell: int) -> tuple[Floats, Floats]:
    """Return x and y of a slot's pixels, -1 to 1, of shapes (1, cell) and (cell, 1)."""
    axis = ((np.arange(cell) + 0.5) * (2 / cell) - 1).astype(np.float32)
    return axis[None, :], axis[:, None]


def _uniform(rng: np.random.Generator, low: float, high: float, count: int) -> Floats:
    return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)


def _draw_parts(
    cells: Floats,
    where: npt.NDArray[np.bool_],
    parts: npt.NDArray[np.int64],
    distance: Callable[[Floats, Floats], Floats],
    rng: np.random.Generator,
) -> None:
    """Paint one shape into every slot of ``where``."""
    count, cell = int(where.sum()), cells.shape[2]
    x, y = _grid(cell)
    radius = _uniform(rng, 0.5, 0.62, count)
    u = (x - _uniform(rng, -0.12, 0.12, count)) / radius
    v = (y - _uniform(rng, -0.12, 0.12, count)) / radius
    # The edge is one pixel wide: distance in pixels, plus a half.
    alpha = np.clip(distance(u, v) * radius * (cell / 2) + 0.5, 0, 1)[..., None]
    colour = _PALETTE[parts[where] % len(COLOURS)] + rng.uniform(-14, 14, (count, 3))
    cells[where] = cells[where] * (1 - alpha) + colour.astype(np.float32)[:, None, None] * alpha


def _draw_blemishes(
    cells: Floats,
    marks: npt.NDArray[np.uint8],
    where: npt.NDArray[np.bool_],
    index: int,
    rng: np.random.Generator,
) -> None:
    """Scratch or dent every slot of ``where``."""
    count, cell = int(where.sum()), cells.shape[2]
    x, y = _grid(cell)
    u, v = x - _uniform(rng, -0.3, 0.3, count), y - _uniform(rng, -0.3, 0.3, count)
    if BLEMISHES[index] == "scratch":
        angle = _uniform(rng, 0, np.pi, count)
        along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        inside, tone = np.minimum(np.float32(0.07) - abs(across), np.float32(0.8) - abs(along)), 20.0
    else:
        radius = np.hypot(u, v)
        inside, tone = _uniform(rng, 0.2, 0.28, count) - radius, 90.0
    alpha = np.clip(inside * (cell / 2) + 0.5, 0, 1)
    shade = np.full((*alpha.shape, 1), tone, dtype=np.float32)
    if BLEMISHES[index] == "dent":  # lit from above: the lower rim is bright
        shade += (v * 500)[..., None]
    cells[where] = cells[where] * (1 - alpha[..., None]) + np.clip(shade, 0, 255) * alpha[..., None]
    marks[where] = np.where(alpha > 0.5, index, 0)


def _join(cells: npt.NDArray[Pixel]) -> npt.NDArray[Pixel]:
    """Join slots of shape (N, 9, cell, cell, ...) into images of shape (N, 3 * cell, 3 * cell, ...)."""
    count, _, cell, _, *rest = cells.shape
    rows = cells.reshape(count, 3, 3, cell, cell, *rest).swapaxes(2, 3)
    return np.ascontiguousarray(rows.reshape(count, 3 * cell, 3 * cell, *rest))


def _develop(pictures: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Add frame, light and noise, and round to bytes."""
    count, size = pictures.shape[:2]
    frame = max(1, round(size / 3 * _FRAME_SHARE))
    for edge in (np.s_[:, :frame], np.s_[:, -frame:], np.s_[:, :, :frame], np.s_[:, :, -frame:]):
        pictures[edge] = _FRAME
    slope = np.linspace(-1, 1, size, dtype=np.float32)
    light = _uniform(rng, 0.88, 1.08, count) + _uniform(rng, -0.06, 0.06, count) * slope
    pictures *= light[..., None]
    noise = rng.random(pictures.shape, dtype=np.float32)  # uniform: three times as fast as normal, and sufficient
    noise *= 2 * _NOISE
    noise += 0.5 - _NOISE  # adding 0.5 rounds the later conversion to bytes
    pictures += noise
    return np.clip(pictures, 0, 255, out=pictures).astype(np.uint8)
