"""A bar chart: ratios on an axis that begins at 0, each with its spread and its goal. Drawn large and scaled down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from nova.bench.turns import Spread

_WIDTH, _TOP, _RIGHT, _ROW, _BOTTOM = 860, 44, 60, 34, 36
_INK, _GRID, _BAR, _GOAL = (60, 60, 60), (228, 228, 228), (70, 130, 180), (200, 80, 60)
_FONT_SIZE, _ENLARGED = 14, 3


@dataclasses.dataclass(frozen=True)
class Bar:
    """One figure: its median is the bar's length, a thin line shows the least and the most, a mark the goal."""

    name: str
    figure: Spread
    goal: float | None = None


def bar_chart(title: str, bars: Sequence[Bar]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw at least one bar, the first on top, on a white (height width 3) uint8 picture."""
    font = ImageFont.load_default(_FONT_SIZE * _ENLARGED)
    height = _TOP + _ROW * len(bars) + _BOTTOM
    picture = Image.new("RGB", (_WIDTH * _ENLARGED, height * _ENLARGED), "white")
    pen = ImageDraw.Draw(picture)
    left = max(pen.textlength(bar.name, font) for bar in bars) + 28 * _ENLARGED
    right, bottom = (_WIDTH - _RIGHT) * _ENLARGED, (height - _BOTTOM) * _ENLARGED
    most = 1.05 * max(max(bar.figure.most, bar.goal or 0.0, 1.0) for bar in bars)

    def across(value: float) -> float:
        return left + value / most * (right - left)

    step = _step(most)
    for number in range(math.floor(most / step) + 1):
        x = across(number * step)
        pen.line((x, _TOP * _ENLARGED, x, bottom), _GRID, _ENLARGED)
        pen.text((x, bottom + 8 * _ENLARGED), f"{number * step:g}", _INK, font, anchor="mt")
    for index, bar in enumerate(bars):
        middle = (_TOP + (index + 0.5) * _ROW) * _ENLARGED
        half = 9 * _ENLARGED
        pen.rectangle((left, middle - half, across(bar.figure.median), middle + half), _BAR)
        pen.line((across(bar.figure.least), middle, across(bar.figure.most), middle), _INK, 2 * _ENLARGED)
        pen.text((left - 8 * _ENLARGED, middle), bar.name, _INK, font, anchor="rm")
        end = across(max(bar.figure.most, bar.figure.median)) + 6 * _ENLARGED
        pen.text((end, middle), f"{bar.figure.median:.3g}", _INK, font, anchor="lm")
        if bar.goal is not None:
            x = across(bar.goal)
            pen.line((x, middle - 1.5 * half, x, middle + 1.5 * half), _GOAL, 2 * _ENLARGED)
    pen.line((left, _TOP * _ENLARGED, left, bottom), _INK, _ENLARGED)
    legend = " (red: the goal)" if any(bar.goal is not None for bar in bars) else ""
    pen.text((12 * _ENLARGED, 12 * _ENLARGED), title + legend, _INK, font)
    return np.array(picture.resize((_WIDTH, height), Image.Resampling.LANCZOS))


def _step(most: float) -> float:
    """A round number of which about five fit into `most`."""
    power = 10.0 ** math.floor(math.log10(most / 5))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= most / 5)
