"""The small world: handwritten digits that move over black, with captions and the whole truth about them.

A sample is drawn, never stored, and is a pure function of (seed, split, index). One digit, or in a third of the
samples two of different colours, each with a value, colour, size, start place, direction and speed. All move
evenly along a straight line and stay in view: the start place is one from which the path fits the frame. Two
digits start apart and the second is drawn over the first.

Splits: "train" never shows the pairs of `digit_attributes.held_out`; "test" has the pairs of training in other
handwriting; in "held_out" each digit shows a held-out pair, in the handwriting of training.
With one frame the sample is an image: its digits stand still and its captions do not speak of motion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from nova.data.digit_attributes import (
    COLOURS,
    DIRECTIONS,
    PLACES,
    SIZES,
    SPEEDS,
    VALUES,
    ZONES,
    Attributes,
    held_out,
)
from nova.data.digit_captions import PHRASINGS, caption_for
from nova.data.digit_drawing import draw, ink_size, typical
from nova.errors import UsageError, nearest

Split = Literal["train", "test", "held_out"]

_LENGTHS = {"train": 1_000_000, "test": 10_000, "held_out": 10_000}
_SPEED_STEPS = 16
_TRIES = 64


@dataclass(frozen=True)
class DigitTruth:
    """One digit as it was drawn. Pixels run right (x) and down (y) from the frame's top left corner.

    glyph: handwriting sample, index into scikit-learn's digits.  rgb: 0 to 255.  centre: of its ink in frame 0.
    velocity: (vx, vy) in pixels a frame.  boxes: of its ink in each frame, (left, top, right, bottom); a part
    outside the frame is counted.
    """

    attributes: Attributes
    glyph: int
    rgb: tuple[int, int, int]
    centre: tuple[float, float]
    velocity: tuple[float, float]
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Sample:
    """A clip or image, its captions and its truth.

    frames: (f size size 3) uint8.  motion: mean over the digits of their pixels a frame.
    """

    frames: np.ndarray
    short: str
    long: str
    motion: float
    digits: tuple[DigitTruth, ...]


@dataclass(frozen=True)
class World:
    """An endless supply of samples, cut at `len(world)`: `world.sample(i)`, also as `world[i]` for a DataLoader.

    size: side of the frames in pixels, a multiple of 8.  frames: 1 or more; 1 makes images.  hands: how many
    handwriting samples each value has, the most typical ones; None for all.  grid: digits start with their centre on
    a multiple of so many pixels, or in the middle of where they may where that holds none; 0 for anywhere.
    Raises UsageError for other values, IndexError for an index outside the world.
    """

    size: int = 64
    frames: int = 17
    seed: int = 0
    split: Split = "train"
    hands: int | None = None
    grid: int = 0

    def __post_init__(self) -> None:
        _check_shape(self.size, self.frames)
        if self.split not in _LENGTHS:
            raise UsageError(f"split: {self.split!r} is unknown{nearest(self.split, _LENGTHS)}")
        if self.seed < 0:
            raise UsageError(f"seed: found {self.seed}, expected 0 or more")
        if self.hands is not None and self.hands < 1:
            raise UsageError(f"hands: found {self.hands}, expected 1 or more, or None for all")
        if self.grid < 0:
            raise UsageError(f"grid: found {self.grid}, expected 0 or more pixels")

    def __len__(self) -> int:
        return _LENGTHS[self.split]

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def sample(self, index: int) -> Sample:
        """Sample number `index`, the same at every call and in every process."""
        placed, phrasing = self._drawn(index)
        return _render(placed, self.size, self.frames, phrasing)

    def captions(self, index: int) -> tuple[str, str]:
        """The short and the long caption of sample number `index`, without drawing it."""
        placed, phrasing = self._drawn(index)
        return _captions(placed, self.frames, phrasing)

    def _drawn(self, index: int) -> tuple[list[_Placed], int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a world of {len(self)}")
        rng = np.random.default_rng([self.seed, get_args(Split).index(self.split), index])
        count = 2 if rng.random() < 1 / 3 else 1
        while True:  # a pair that cannot start apart is drawn anew
            digits = _draw_attributes(rng, count, self.split, moving=self.frames > 1)
            hands = _handwriting(rng, digits, self.split, self.hands)
            placed = _place(rng, digits, hands, self.size, self.frames, self.grid)
            if placed is not None:
                return placed, int(rng.integers(PHRASINGS))


def scene(
    digits: Sequence[Attributes],
    size: int = 64,
    frames: int = 17,
    seed: int = 0,
    split: Split = "train",
    phrasing: int = 0,
) -> Sample:
    """A sample with these attributes, in the handwriting of `split`; `seed` chooses the glyphs and exact places.

    In an image direction and speed are ignored. `phrasing` numbers the wording of the long caption.
    Raises UsageError where a digit would leave the frame, naming the places it can start from, and where two
    digits cannot start apart.
    """
    _check_shape(size, frames)
    if not digits:
        raise UsageError("digits: found none, expected at least one")
    if frames == 1:
        digits = [replace(digit, direction="still", speed="normal") for digit in digits]
    for digit in digits:
        if digit.place not in (fitting := fitting_places(digit)):
            raise UsageError(f"place: {caption_for([digit])!r} cannot start at {digit.place!r}; it fits from {fitting}")
    rng = np.random.default_rng([seed, get_args(Split).index(split), len(digits)])
    for _ in range(_TRIES):
        placed = _place(rng, digits, _handwriting(rng, digits, split, None), size, frames, grid=0)
        if placed is not None:
            return _render(placed, size, frames, phrasing)
    raise UsageError(f"digits: {caption_for(digits)!r} cannot start apart; give them places further from each other")


def fitting_places(digit: Attributes) -> tuple[str, ...]:
    """The start places from which a digit of this size, direction and speed keeps in view, its own place ignored."""
    spans = [_start_span(SIZES[digit.size], step) for step in _travel(digit)]
    return tuple(
        place
        for place, zones in PLACES.items()
        if all(_meet(span, ZONES[zone]) for span, zone in zip(spans, zones, strict=True))
    )


@dataclass(frozen=True)
class _Placed:
    """A digit with its handwriting and path. Lengths in pixels; width and height are of the ink."""

    attributes: Attributes
    glyph: int
    width: float
    height: float
    centre: tuple[float, float]
    velocity: tuple[float, float]

    def boxes(self, frames: int) -> np.ndarray:
        """(f 4) left, top, right, bottom."""
        path = np.array(self.centre) + np.arange(frames)[:, None] * np.array(self.velocity)
        half = np.array([self.width, self.height]) / 2
        return np.concatenate([path - half, path + half], axis=1)


def _check_shape(size: int, frames: int) -> None:
    if size < 8 or size % 8:
        raise UsageError(f"size: found {size}, expected a multiple of 8")
    if frames < 1:
        raise UsageError(f"frames: found {frames}, expected 1 or more")


def _draw_attributes(rng: np.random.Generator, count: int, split: Split, moving: bool) -> list[Attributes]:
    """`count` digits of different colours, each allowed in `split`, each at a place from which its path fits."""
    digits: list[Attributes] = []
    while len(digits) < count:
        direction = str(rng.choice(list(DIRECTIONS))) if moving else "still"
        digit = Attributes(
            value=int(rng.choice(VALUES)),
            colour=str(rng.choice(list(COLOURS))),
            size=str(rng.choice(list(SIZES))),
            direction=direction,
            speed="normal" if direction == "still" else str(rng.choice(list(SPEEDS))),
        )
        if held_out(digit, moving) == (split == "held_out") and all(digit.colour != other.colour for other in digits):
            digits.append(replace(digit, place=str(rng.choice(fitting_places(digit)))))
    return digits


def _handwriting(rng: np.random.Generator, digits: Sequence[Attributes], split: Split, hands: int | None) -> list[int]:
    writers = "test" if split == "test" else "train"
    return [int(rng.choice(sorted(typical(writers, digit.value)[:hands]))) for digit in digits]


def _place(
    rng: np.random.Generator, digits: Sequence[Attributes], hands: Sequence[int], size: int, frames: int, grid: int
) -> list[_Placed] | None:
    """The digits on their paths, or None where two of them would start less than a thirty-second apart."""
    placed: list[_Placed] = []
    for digit, glyph in zip(digits, hands, strict=True):
        width, height = ink_size(glyph, SIZES[digit.size] * size)
        travel = _travel(digit)
        centre = []
        for length, step, zone in zip((width, height), travel, PLACES[digit.place], strict=True):
            low, high = _start_span(length / size, step)
            low, high = max(low, ZONES[zone][0]), min(high, ZONES[zone][1])
            centre.append(_on_grid(rng, size * low, size * high, grid) if grid else size * rng.uniform(low, high))
        steps = max(_SPEED_STEPS, frames - 1)
        velocity = (travel[0] * size / steps, travel[1] * size / steps)
        placed.append(_Placed(digit, glyph, width, height, (centre[0], centre[1]), velocity))
    starts = [one.boxes(1)[0] for one in placed]
    gap = size / 32
    for first in range(len(starts)):
        for second in range(first):
            a, b = starts[first], starts[second]
            if (np.maximum(a[:2], b[:2]) < np.minimum(a[2:], b[2:]) + gap).all():
                return None
    return placed


def _on_grid(rng: np.random.Generator, low: float, high: float, grid: int) -> float:
    points = np.arange(np.ceil(low / grid), np.floor(high / grid) + 1) * grid
    return float(rng.choice(points)) if len(points) else (low + high) / 2


def _travel(digit: Attributes) -> tuple[float, float]:
    """The way (x, y) of a seventeen-frame clip, in fractions of the side."""
    x, y = DIRECTIONS[digit.direction]
    return x * SPEEDS[digit.speed], y * SPEEDS[digit.speed]


def _start_span(length: float, step: float) -> tuple[float, float]:
    """Where the centre of an ink `length` may start for a way of `step`, in fractions of the side.

    Where the way is longer than the free path the digit passes the edges evenly at both ends.
    """
    low, high = length / 2 - min(step, 0), 1 - length / 2 - max(step, 0)
    return (low, high) if low <= high else ((low + high) / 2, (low + high) / 2)


def _meet(span: tuple[float, float], zone: tuple[float, float]) -> bool:
    return max(span[0], zone[0]) <= min(span[1], zone[1])


def _captions(placed: Sequence[_Placed], frames: int, phrasing: int) -> tuple[str, str]:
    digits = [digit.attributes for digit in placed]
    return caption_for(digits, moving=frames > 1), caption_for(digits, moving=frames > 1, phrasing=phrasing)


def _render(placed: Sequence[_Placed], size: int, frames: int, phrasing: int) -> Sample:
    canvas = np.zeros((frames, size, size, 3), np.float32)
    for digit in placed:
        boxes = digit.boxes(frames)
        cover = draw(digit.glyph, digit.height, boxes[:, 0], boxes[:, 1], size)[..., None].astype(np.float32)
        canvas += cover * (np.array(COLOURS[digit.attributes.colour], np.float32) - canvas)
    short, long = _captions(placed, frames, phrasing)
    return Sample(
        frames=np.rint(canvas).astype(np.uint8),
        short=short,
        long=long,
        motion=float(np.mean([np.hypot(*digit.velocity) for digit in placed])),
        digits=tuple(
            DigitTruth(
                attributes=digit.attributes,
                glyph=digit.glyph,
                rgb=COLOURS[digit.attributes.colour],
                centre=digit.centre,
                velocity=digit.velocity,
                boxes=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in digit.boxes(frames)),
            )
            for digit in placed
        ),
    )
