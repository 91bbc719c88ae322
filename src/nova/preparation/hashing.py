"""A perceptual hash of 64 bits: clips that look alike differ in few bits, whatever their size or compression.

Each bit says whether a low frequency of the picture (its cosine transform) is above their median. An image gives 64
of them; a clip gives 16 from each of four frames, so that order and movement count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from nova.preparation.vision import cv2

BITS = 64
_SIDE = 32


def perceptual_hash(greys: Sequence[UInt8[np.ndarray, "h w"]]) -> int:
    """The hash of grey frames, as a number of 64 bits. Of a flat picture it is 0."""
    if len(greys) < 4:
        return _bits(greys[0], 8)
    places = [round((2 * quarter + 1) * (len(greys) - 1) / 8) for quarter in range(4)]
    number = 0
    for place in places:
        number = number << 16 | _bits(greys[place], 4)
    return number


def _bits(grey: UInt8[np.ndarray, "h w"], side: int) -> int:
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:side, :side].reshape(-1)
    low[0] = 0  # the mean, which brightness alone changes
    if np.abs(low).max() < 1:  # of a flat picture only noise would speak
        return 0
    above = low > np.median(low)
    return int.from_bytes(np.packbits(above).tobytes(), "big")
