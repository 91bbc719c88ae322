"""Handwritten digits as smooth masks, drawn at any size and any fraction of a pixel.

Each 8x8 digit of scikit-learn's set (UCI, Alpaydin and Kaynak 1998) is enlarged ten times, smoothed and softly
thresholded into a master mask. A pixel of a drawn digit is the mask's mean over that pixel's exact area, taken
from the mask's running sum: antialiased, and as cheap for a moving digit as for a resting one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits

_SCALE = 10
_HOLES = {0: (1,), 1: (0,), 2: (0,), 3: (0,), 4: (0, 1), 5: (0,), 6: (1,), 7: (0,), 8: (2,), 9: (1,)}
_SMALLEST_HOLE = 60  # cells of the master mask, of about 5000 under a digit
_MARGIN = 1.25


@lru_cache(maxsize=1)
def glyphs() -> dict[tuple[str, int], tuple[int, ...]]:
    """The legible handwriting samples by (set, value), set "train" or "test": indices into scikit-learn's digits.

    Legible: the mask is in one piece, has the holes its digit should have (two for an 8), and the 8x8 image is
    clearly nearer to the mean of its own value than to that of any other. The set is ordered by writer: "test",
    the last fifth, is mostly in hands that "train" never shows.
    """
    images, values = _digits()
    means = np.stack([images[values == value].mean(axis=0) for value in range(10)])
    distances = ((images[:, None] - means) ** 2).sum(axis=(2, 3))
    own = distances[np.arange(len(values)), values]
    distances[np.arange(len(values)), values] = np.inf
    clear = distances.min(axis=1) > _MARGIN * own
    kept: dict[tuple[str, int], tuple[int, ...]] = {}
    for value in range(10):
        candidates = (int(glyph) for glyph in np.flatnonzero(clear & (values == value)))
        legible = [glyph for glyph in candidates if _well_formed(_mask(glyph), value)]
        first_test = len(legible) * 4 // 5
        kept["train", value] = tuple(legible[:first_test])
        kept["test", value] = tuple(legible[first_test:])
    return kept


@lru_cache(maxsize=32)
def typical(writers: str, value: int) -> tuple[int, ...]:
    """The legible handwriting samples of a value in the set `writers`, those nearest to their mean first."""
    found = np.array(glyphs()[writers, value])
    images = _digits()[0][found]
    return tuple(found[np.argsort(((images - images.mean(axis=0)) ** 2).sum(axis=(1, 2)), kind="stable")].tolist())


def ink_size(glyph: int, height: float) -> tuple[float, float]:
    """Width and height in pixels of a glyph drawn `height` pixels high."""
    rows, columns = _ink(glyph).shape
    return height * (columns - 1) / (rows - 1), height


def draw(glyph: int, height: float, lefts: np.ndarray, tops: np.ndarray, size: int) -> np.ndarray:
    """Coverage in [0, 1] (f size size) of a glyph `height` pixels high whose ink box begins at (lefts, tops) (f,)."""
    sums = _ink(glyph)
    cells = (sums.shape[0] - 1) / height  # master cells a pixel
    edges = np.arange(size + 1)
    y, x = ((edges - start[:, None]) * cells for start in (tops, lefts))
    frames = np.arange(len(lefts))[:, None]
    row, row_part = _split(y, sums.shape[0])
    column, column_part = _split(x, sums.shape[1])
    strips = sums[row] * (1 - row_part)[..., None] + sums[row + 1] * row_part[..., None]
    strips = np.diff(strips, axis=1)
    across = strips.transpose(0, 2, 1)
    areas = across[frames, column] * (1 - column_part)[..., None] + across[frames, column + 1] * column_part[..., None]
    return (np.diff(areas, axis=1) / cells**2).transpose(0, 2, 1)


def _split(position: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions on a running sum of `length` entries, kept within it, as whole index and remainder."""
    position = np.clip(position, 0, length - 1)
    whole = np.minimum(position.astype(np.intp), length - 2)
    return whole, position - whole


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return bunch.images / 16.0, bunch.target


def _mask(glyph: int) -> np.ndarray:
    small = np.pad(_digits()[0][glyph], 1).astype(np.float32)
    side = _SCALE * small.shape[0]
    large = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.LANCZOS))
    return np.clip((ndimage.gaussian_filter(large, 0.25 * _SCALE) - 0.5) / 0.12 + 0.5, 0, 1)


@lru_cache(maxsize=2048)
def _ink(glyph: int) -> np.ndarray:
    """The running sum (rows + 1, columns + 1) of a mask cut to its ink."""
    mask = _mask(glyph).astype(np.float64)
    rows, columns = (np.flatnonzero((mask > 0.5).any(axis=axis)) for axis in (1, 0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


def _well_formed(mask: np.ndarray, value: int) -> bool:
    ink = mask > 0.5
    areas = np.bincount(ndimage.label(~ink)[0].ravel())[2:]  # the first background part lies around the digit
    return ndimage.label(ink)[1] == 1 and len(areas) in _HOLES[value] and bool((areas >= _SMALLEST_HOLE).all())
