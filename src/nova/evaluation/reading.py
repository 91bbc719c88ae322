"""Reading digits: which value a shape has, and whether it can be read at all.

A shape is cut to its ink, brought to a square of `SIDE` cells and held against the world's handwriting (the training
hands of `nova.data.digit_drawing`), drawn at its three sizes: its value is that of most of the nearest `NEIGHBOURS`. It
is legible when it lies as near to handwriting as unseen handwriting does, and most of the neighbours have one value.
Nothing is random, so a picture always reads the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from nova.data.digit_attributes import SIZES, VALUES
from nova.data.digit_drawing import draw, ink_size, typical

SIDE = 12
NEIGHBOURS = 5
_HANDS = 60
"""Handwriting samples of each value, the most typical ones: all of them read no better."""
_FRAME = 64
_OFFSETS = (0.0, 0.5)
_UNSEEN = 0.99
"""Part of the unseen handwriting that counts as legible."""
_INK = 0.35


@dataclass(frozen=True)
class Reader:
    """Handwriting to compare with.

    known: (n cells) shapes, each of length 1.  values: theirs.  reach: the largest distance of a legible shape.
    """

    known: Float[np.ndarray, "n cells"]
    values: Int[np.ndarray, "n"]
    reach: float

    def read(self, shapes: Sequence[Float[np.ndarray, "_ _"]]) -> tuple[Int[np.ndarray, "k"], Bool[np.ndarray, "k"]]:
        """Value of each shape, ink from 0 to 1 on nothing else, and whether it is legible."""
        if not shapes:
            return np.zeros(0, np.int64), np.zeros(0, bool)
        distances, values = self._nearest(np.stack([prepared(shape) for shape in shapes]))
        votes = np.stack([(values == value).sum(axis=1) for value in VALUES], axis=1)
        found = votes.argmax(axis=1)
        return found, (distances[:, 0] <= self.reach) & (votes.max(axis=1) > NEIGHBOURS / 2)

    def _nearest(self, features: Float[np.ndarray, "k cells"]) -> tuple[np.ndarray, np.ndarray]:
        """Distances and values of the neighbours of each, the nearest first."""
        distances = np.sqrt(np.maximum(2 - 2 * features @ self.known.T, 0))  # of vectors of length 1
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
        return np.take_along_axis(distances, nearest, axis=1), self.values[nearest]


@lru_cache(maxsize=1)
def reader() -> Reader:
    """The one reader: made in about a second, then kept."""
    known, values = _drawn("train", _OFFSETS)
    unseen, _ = _drawn("test", _OFFSETS[:1])
    made = Reader(known, values, np.inf)
    distances, _ = made._nearest(unseen)
    return Reader(known, values, float(np.quantile(distances[:, 0], _UNSEEN)))


def prepared(shape: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "cells"]:
    """A shape cut to its ink, centred in a square of SIDE cells, as one vector of length 1; zeros without ink."""
    rows, columns = (np.flatnonzero((shape > _INK).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros(SIDE * SIDE)
    cut = shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(cut.shape)
    square = np.zeros((side, side), np.float32)
    top, left = (side - cut.shape[0]) // 2, (side - cut.shape[1]) // 2
    square[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    small = np.asarray(Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BILINEAR)).ravel()
    return small / max(float(np.linalg.norm(small)), 1e-9)


def _drawn(writers: str, offsets: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Shapes (n cells) and values (n,) of handwriting at every size."""
    shapes, values = [], []
    for value in VALUES:
        for glyph in typical(writers, value)[:_HANDS]:
            for size in SIZES.values():
                width, height = ink_size(glyph, size * _FRAME)
                starts = np.array(offsets) + (_FRAME - height) // 2
                covers = draw(glyph, height, starts + (height - width) // 2, starts, _FRAME)
                shapes += [prepared(cover.astype(np.float32)) for cover in covers]
                values += [value] * len(offsets)
    return np.stack(shapes), np.array(values)
