"""How well a clip of the small world shows what was asked for, measured on its pixels.

For every digit that was asked for:

1. *Ink* are the pixels brighter than `INK`. Each belongs to the digit whose colour it is nearest to in hue, of the ones
   asked for; spots far smaller than the largest piece are left out.
2. *Colour* is right if the ink's mean is nearest to the colour asked for, of all eight.
3. *Value* is right if most frames read so, and *legible* is the share of frames that can be read at all
   (`nova.evaluation.reading`). Frames in which two digits meet are left out.
4. A straight line through the ink's centres gives the way in a clip of seventeen frames. *Direction* is right if it is
   the nearest of the eight; shorter than half the slowest speed is standing still. *Speed* is right if the way in the
   direction asked for is nearest to the speed asked for, by its ratio.

A digit that is in fewer than half of the frames has nothing right. The *score* of a digit is `legible` times the mean
of the other four: 1 for what the world draws itself; for captions of other clips, the share of attributes that two
captions have in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from nova.data.digit_attributes import COLOURS, DIRECTIONS, SPEEDS, Attributes
from nova.errors import UsageError
from nova.evaluation.reading import Reader, reader

INK = 0.35
_SPOT = 0.15
"""Pieces of ink smaller than this part of the largest are no part of a digit."""
_LEAST = 12 / 64**2
"""Of a frame's pixels: with less ink a digit is not there."""
_STEPS = 16
_STILL = min(SPEEDS.values()) / 2


@dataclass(frozen=True)
class DigitScore:
    """What is right about one digit: 1 or 0, and for `legible` a share of frames."""

    value: float = 0.0
    colour: float = 0.0
    direction: float = 0.0
    speed: float = 0.0
    legible: float = 0.0

    @property
    def score(self) -> float:
        """One number from 0 to 1."""
        return self.legible * (self.value + self.colour + self.direction + self.speed) / 4


@dataclass(frozen=True)
class Figures:
    """Means over all digits of some clips, and the standard error of the score's."""

    value: float
    colour: float
    direction: float
    speed: float
    legible: float
    score: float
    error: float
    digits: int

    @classmethod
    def of(cls, scores: Iterable[DigitScore]) -> Figures:
        """Of at least one digit."""
        found = list(scores)
        means = {one.name: float(np.mean([getattr(score, one.name) for score in found])) for one in fields(DigitScore)}
        overall = np.array([score.score for score in found])
        error = float(overall.std()) / math.sqrt(len(found))
        return cls(**means, score=float(overall.mean()), error=error, digits=len(found))


def score_clip(frames: UInt8[np.ndarray, "f size size 3"], asked: Sequence[Attributes]) -> tuple[DigitScore, ...]:
    """The score of each digit `asked` for, in a clip of at least two frames. Raises UsageError for other arrays."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) < 2 or not asked:
        raise UsageError(
            f"frames: {frames.dtype} {frames.shape} for {len(asked)} digits; give a clip and what it shows"
        )
    shares = _ink_of_each(frames, asked)
    boxes = [[_box(frame) for frame in ink] for ink in shares]
    return tuple(
        _score(frames, ink, own, [other for other in boxes if other is not own], digit, reader())
        for ink, own, digit in zip(shares, boxes, asked, strict=True)
    )


Box = tuple[int, int, int, int]
"""Top, left, bottom, right of some ink, in pixels; the last two exclusive."""


def _score(
    frames: UInt8[np.ndarray, "f size size 3"],
    ink: Float[np.ndarray, "f size size"],
    boxes: list[Box | None],
    others: list[list[Box | None]],
    digit: Attributes,
    reading: Reader,
) -> DigitScore:
    there = [index for index, box in enumerate(boxes) if box is not None]
    if len(there) < len(frames) / 2:
        return DigitScore()
    apart = [index for index in there if not any(_meet(boxes[index], other[index]) for other in others)] or there
    values, legible = reading.read([_cut(ink[index], boxes[index]) for index in apart])
    way = _way(ink, boxes, there)
    expected = np.array(DIRECTIONS[digit.direction], float)
    direction = _direction(way) == digit.direction
    speed = direction
    if digit.direction != "still":
        along = max(float(way @ expected) / float(expected @ expected), 1e-6)
        nearest = min(SPEEDS, key=lambda name: abs(math.log(along / SPEEDS[name])))
        speed = along >= _STILL and nearest == digit.speed
    return DigitScore(
        value=float((values == digit.value).mean() > 0.5),
        colour=float(_colour(frames, ink) == digit.colour),
        direction=float(direction),
        speed=float(speed),
        legible=float(legible.mean()),
    )


def _ink_of_each(
    frames: UInt8[np.ndarray, "f size size 3"], asked: Sequence[Attributes]
) -> list[Float[np.ndarray, "f size size"]]:
    """For each digit the brightness from 0 to 1 of the pixels that are its own, 0 elsewhere."""
    brightness = frames.max(axis=3) / 255
    hues = _hue(frames)
    distances = np.stack([((hues - _hue(np.array(COLOURS[digit.colour]))) ** 2).sum(axis=-1) for digit in asked])
    owner = distances.argmin(axis=0)
    shares = []
    for index in range(len(asked)):
        own = np.where((owner == index) & (brightness > INK), brightness, 0)
        shares.append(np.stack([_without_spots(frame) for frame in own]))
    return shares


def _hue(rgb: np.ndarray) -> np.ndarray:
    """Colours divided by their brightest part: the same for all shades on the way to black."""
    rgb = rgb.astype(float)
    return rgb / np.maximum(rgb.max(axis=-1, keepdims=True), 1)


def _without_spots(ink: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "size size"]:
    pieces, count = ndimage.label(ink > 0, structure=np.ones((3, 3)))
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    areas[0] = 0
    if areas.max() < _LEAST * ink.size:
        return np.zeros_like(ink)
    return np.where(areas[pieces] >= _SPOT * areas.max(), ink, 0)


def _box(ink: Float[np.ndarray, "size size"]) -> Box | None:
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    return (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1) if len(rows) else None


def _cut(ink: Float[np.ndarray, "size size"], box: Box | None) -> Float[np.ndarray, "h w"]:
    top, left, bottom, right = box or (0, 0, 0, 0)
    return ink[top:bottom, left:right].astype(np.float32)


def _meet(one: Box | None, other: Box | None) -> bool:
    """Whether two boxes overlap or touch."""
    if one is None or other is None:
        return False
    return all(max(one[axis], other[axis]) <= min(one[axis + 2], other[axis + 2]) for axis in (0, 1))


def _colour(frames: UInt8[np.ndarray, "f size size 3"], ink: Float[np.ndarray, "f size size"]) -> str:
    """The colour nearest to the mean of the ink, bright pixels counting more."""
    mean = _hue((frames * ink[..., None]).sum(axis=(0, 1, 2)) / ink.sum())
    return min(COLOURS, key=lambda name: float(((mean - _hue(np.array(COLOURS[name]))) ** 2).sum()))


def _way(ink: Float[np.ndarray, "f size size"], boxes: list[Box | None], there: list[int]) -> Float[np.ndarray, "2"]:
    """The way (x, y) in a clip of seventeen frames, as fractions of the side, from a straight line through the centres.

    Where ink is cut off by the frame's edge its centre is not the digit's: such frames count only if few are left.
    """
    size = ink.shape[1]
    whole = [index for index in there if (box := boxes[index]) and min(box[:2]) > 0 and max(box[2:]) < size]
    times = whole if len(whole) >= max(3, len(ink) / 3) else there
    centres = np.array([ndimage.center_of_mass(ink[index])[::-1] for index in times])
    return np.polyfit(times, centres, 1)[0] * _STEPS / size


def _direction(way: Float[np.ndarray, "2"]) -> str:
    if np.abs(way).max() < _STILL:
        return "still"
    unit = way / np.linalg.norm(way)
    moving = {name: np.array(step) / math.hypot(*step) for name, step in DIRECTIONS.items() if name != "still"}
    return max(moving, key=lambda name: float(unit @ moving[name]))
