"""Which size a picture is brought to, and how: scaled until it covers the size, then cut equally on both sides.

The scale keeps the aspect to within half a pixel. Nothing is enlarged unless that is asked for. What was done follows
from the sizes before and after alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nova.preparation.rules import Bucket, Rules

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Box:
    """A part of a picture, in its pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Fit:
    """How a picture becomes `size`: scaled to `scaled`, of which `size` is cut out at `top` and `left`."""

    size: Size
    scaled: Size
    top: int
    left: int


def fit(source: Size, size: Size, box: Box | None = None) -> Fit:
    """How `box` of a picture of size `source`, or all of it, comes to cover `size`."""
    box = box or Box(0, 0, *source)
    scale = max(size[0] / box.height, size[1] / box.width)
    # Scaled by itself, the box is not smaller than the size, but for the rounding of the whole picture's sides.
    scaled = max(round(source[0] * scale), size[0]), max(round(source[1] * scale), size[1])
    top = round(box.top * scale + (box.height * scale - size[0]) / 2)
    left = round(box.left * scale + (box.width * scale - size[1]) / 2)
    return Fit(size, scaled, min(max(top, 0), scaled[0] - size[0]), min(max(left, 0), scaled[1] - size[1]))


def enlarged(source: Size, size: Size) -> bool:
    """Whether a picture of size `source` has to grow to cover `size`."""
    return source[0] < size[0] or source[1] < size[1]


def kept(source: Size, size: Size) -> float:
    """The share of a picture's area that is left when it is cut to the aspect of `size`."""
    ratio = (source[1] / source[0]) / (size[1] / size[0])
    return min(ratio, 1 / ratio)


def sizes_for(still: bool, rules: Rules) -> tuple[Size, ...]:
    """The sizes that images (`still`) or videos may become, in the order of the rules."""
    return tuple(dict.fromkeys((each.height, each.width) for each in rules.buckets if (each.frames == 1) == still))


def best_size(source: Size, sizes: Sequence[Size], upscale: bool) -> Size | None:
    """The size of which the crop leaves most of the picture, and the largest of those; None if all would enlarge."""
    possible = [size for size in sizes if upscale or not enlarged(source, size)]
    whole = [size for size in possible if not enlarged(source, size)] or possible
    return max(whole, key=lambda size: (round(kept(source, size), 6), size[0] * size[1]), default=None)


def lengths_of(size: Size, still: bool, rules: Rules) -> tuple[int, ...]:
    """The numbers of frames that clips of `size` may have, in ascending order."""
    return tuple(sorted(_lengths(size, still, rules.buckets)))


def _lengths(size: Size, still: bool, buckets: Sequence[Bucket]) -> set[int]:
    return {each.frames for each in buckets if (each.height, each.width) == size and (each.frames == 1) == still}
