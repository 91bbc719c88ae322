"""Animated GIF, WebP, PNG and AVIF files as videos: their pictures, whole and laid on a ground, with their times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from nova.media.images import MAX_PIXELS, Colour, image_file, upright_picture
from nova.media.stream import Frame

_SHORTEST, _USUAL = 20, 100  # milliseconds: browsers show pictures that claim less than the first for the second


def animation_frames(
    file: BinaryIO, path: str | Path, max_pixels: int = MAX_PIXELS, background: Colour = (255, 255, 255)
) -> Iterator[Frame]:
    """The pictures of an open file, called `path` in messages, one after the other. Raises MediaError."""
    with image_file(file, path, max_pixels) as image:
        time = Fraction(0)
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            pixels = upright_picture(image, path, background).pixels
            claimed = float(image.info.get("duration", 0))
            duration = Fraction(round(claimed if claimed >= _SHORTEST else _USUAL), 1000)
            yield Frame(av.VideoFrame.from_ndarray(pixels, format="rgb24"), time, duration)
            time += duration
