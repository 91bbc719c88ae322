"""A line chart: curves over steps, values on a logarithmic axis. Drawn large and scaled down, for smooth lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from nova.errors import UsageError

Colour = tuple[int, int, int]

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 28, 44, 40
_INK, _GRID = (60, 60, 60), (228, 228, 228)
_FONT_SIZE, _ENLARGED = 14, 3


@dataclass(frozen=True)
class Curve:
    """Points joined by lines of `width` pixels. A curve without a `name` is not in the legend."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: Colour
    width: float = 2.0


def line_chart(title: str, curves: Sequence[Curve], width: int = 720, height: int = 400) -> UInt8[np.ndarray, "H W 3"]:
    """Draw `curves`, later ones on top, on one white (height width 3) uint8 picture.

    Steps run from 0; values run from the lowest to the highest of all but the outermost hundredth of each curve's.
    Points that are not positive are left out. Raises UsageError where none is left.
    """
    shown = [(curve, _positive(curve)) for curve in curves]
    spans = [np.quantile([value for _, value in points], (0.005, 0.995)) for _, points in shown if points]
    if not spans:
        raise UsageError(f"{title}: found no positive values to draw")
    low, high = float(min(span[0] for span in spans)) / 1.05, float(max(span[1] for span in spans)) * 1.05
    last = max(step for _, points in shown for step, _ in points) or 1.0
    picture = Image.new("RGB", (width * _ENLARGED, height * _ENLARGED), "white")
    pen = ImageDraw.Draw(picture)

    def across(step: float) -> float:
        return (_LEFT + step / last * (width - _LEFT - _RIGHT)) * _ENLARGED

    def down(value: float) -> float:
        part = math.log(high / min(max(value, low), high)) / math.log(high / low)
        return (_TOP + part * (height - _TOP - _BOTTOM)) * _ENLARGED

    left, right, bottom = across(0), across(last), down(low)
    for value in _value_ticks(low, high):
        pen.line((left, down(value), right, down(value)), _GRID, _ENLARGED)
        pen.text((left - 8 * _ENLARGED, down(value)), f"{value:g}", _INK, _font(), anchor="rm")
    for step in _multiples(0, last, last / 5):
        pen.line((across(step), bottom, across(step), bottom + 4 * _ENLARGED), _INK, _ENLARGED)
        pen.text((across(step), bottom + 8 * _ENLARGED), f"{step:,g}", _INK, _font(), anchor="mt")
    pen.line((left, bottom, right, bottom), _INK, _ENLARGED)
    for curve, points in shown:
        pen.line(
            [(across(step), down(value)) for step, value in points],
            curve.colour,
            round(curve.width * _ENLARGED),
            joint="curve",
        )
    pen.text((left, 12 * _ENLARGED), title, _INK, _font())
    _legend(pen, [curve for curve, _ in shown if curve.name], right)
    return np.array(picture.resize((width, height), Image.Resampling.LANCZOS))


def _positive(curve: Curve) -> list[tuple[float, float]]:
    points = zip(curve.steps, curve.values, strict=True)
    return [(step, value) for step, value in points if math.isfinite(value) and value > 0]


def _value_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 times these where there is room, or even steps where there would be few."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    digits = (1, 2, 5) if len(powers) < 5 else (1,)
    ticks = [digit * power for power in powers for digit in digits if low <= digit * power <= high]
    return ticks if len(ticks) > 2 else _multiples(low, high, (high - low) / 4)


def _multiples(low: float, high: float, about: float) -> list[float]:
    """The multiples between `low` and `high` of a round number near `about`."""
    power = 10.0 ** math.floor(math.log10(about))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= about * 0.5)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _legend(pen: ImageDraw.ImageDraw, curves: Sequence[Curve], right: float) -> None:
    for curve in reversed(curves):
        pen.text((right, 12 * _ENLARGED), curve.name, _INK, _font(), anchor="ra")
        right -= pen.textlength(curve.name, _font()) + 6 * _ENLARGED
        line = (right - 22 * _ENLARGED, 20 * _ENLARGED, right, 20 * _ENLARGED)
        pen.line(line, curve.colour, round(curve.width * _ENLARGED))
        right -= 40 * _ENLARGED


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE * _ENLARGED)
