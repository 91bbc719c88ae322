"""Small videos that PyAV writes: frames that carry their numbers as grey levels, at any times, in any container."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from nova.preparation.items import FileMedia, Item

STEP = 6
"""Grey levels from one number to the next; 40 numbers fit."""

CODECS = {
    "mp4": "libx264",
    "mov": "libx264",
    "matroska": "libx264",
    "webm": "libvpx-vp9",
    "avi": "mpeg4",
    "mpegts": "mpeg2video",
    "mpeg": "mpeg2video",
    "flv": "flv",
}


def numbered(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames (height width 3) of which each says its number, from 0."""
    return [np.full((height, width, 3), 8 + STEP * number, np.uint8) for number in range(count)]


def numbers(frames: Sequence[np.ndarray]) -> list[int]:
    """The numbers that decoded frames carry."""
    return [round((float(np.mean(frame)) - 8) / STEP) for frame in frames]


def film(
    frames: Sequence[np.ndarray],
    container: str = "mp4",
    pts: Sequence[int] | None = None,
    rate: int | Fraction = 30,
    base: Fraction | None = None,
    codec: str | None = None,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    **context: object,
) -> bytes:
    """A video file. pts: in units of `base` (default 1 / rate), one a frame; `context`: fields of the encoder's."""
    with (
        tempfile.NamedTemporaryFile() as file,  # some muxers open it again by its name
        av.open(file.name, "w", format=container, options=muxer or {}) as opened,
    ):
        stream = opened.add_stream(codec or CODECS[container], rate=rate, options={"b": "8000000", **(options or {})})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        if base is not None:
            stream.codec_context.time_base = base
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
            frame.pts = number if pts is None else pts[number]
            frame.time_base = base or Fraction(1) / rate
            opened.mux(stream.encode(frame))
        opened.mux(stream.encode(None))
        opened.close()
        return Path(file.name).read_bytes()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with some bytes changed, or a stretch left out, doubled or overwritten."""
    spoiled = bytearray(data)
    how, place = rng.randrange(4), rng.randrange(len(data))
    if how == 0:
        for _ in range(rng.choice((1, 4, 32))):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
    elif how == 1:
        del spoiled[place : place + rng.choice((1, 16, 400))]
    elif how == 2:
        spoiled[place:place] = spoiled[max(0, place - 64) : place]
    else:
        spoiled[place : place + 8] = rng.randbytes(8)
    return bytes(spoiled)


def item_of(path: Path, data: bytes | None = None, **fields: object) -> Item:
    """An item with one caption; writes `data` to its file first, if given."""
    if data is not None:
        path.write_bytes(data)
    return Item(**{"id": path.name, "media": FileMedia(path, ""), "captions": ("a caption",), **fields})
