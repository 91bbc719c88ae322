"""Video files <-> uint8 RGB frames (f H W 3), through PyAV."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from nova.errors import DataError, UsageError
from nova.files import written_whole
from nova.media.files import opened
from nova.media.raster import Rasteriser
from nova.media.stream import MAX_PIXELS, open_video

# x264's macroblock tree reads memory it has not written: with it the same frames give other bytes now and then.
_H264 = {"profile": "high", "preset": "medium", "crf": "16", "flags": "+bitexact", "x264-params": "mbtree=0"}
_BT709 = 1  # the number of its matrix, primaries and transfer curve alike (ITU-T H.273)


@dataclass(frozen=True)
class Clip:
    """frames: (f H W 3) uint8.  fps: frames a second, the file's average."""

    frames: np.ndarray
    fps: float


def read_video(path: str | Path, max_frames: int | None = None) -> Clip:
    """The first video stream of a file, from its start, at most `max_frames` of it: every frame as decoded.

    Frames are upright (quarter turns and mirrors of the display matrix) with square pixels, transparent ones on
    white, interlaced ones made whole; `max_frames` bounds the memory. Raises DataError for anything that is not a
    regular file in one of CONTAINERS, and for one without video, damaged, cut short, in high dynamic range or with
    more than MAX_PIXELS a frame.
    """
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"max_frames: found {max_frames}, expected 1 or more")
    with opened(path) as file, open_video(file, path) as video:
        raster = Rasteriser(video.facts.aspect, name=str(path))
        pictures: list[np.ndarray] = []
        for frame in itertools.islice(video.frames(), max_frames):
            height, width = raster.size(frame.picture)
            if height * width > MAX_PIXELS:
                raise DataError(f"{path}: has {width}x{height} pixels a frame when they are square; scale it down")
            pictures.append(raster.rgb(frame.picture))
        if video.facts.fps is None:
            raise DataError(f"{path}: does not say its frame rate; write it anew with one")
        return Clip(np.stack(pictures), float(video.facts.fps))


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float | Fraction) -> None:
    """Write uint8 frames (H W 3) as H.264 (High, yuv420p, BT.709) in MP4, playable from its first bytes.

    The same frames give the same bytes on one machine. The format has even sizes only: an odd one gains a last
    row or column, a copy of its neighbour. Frames are taken one by one, so a generator needs little memory.
    Raises UsageError for no frames, other arrays or a wrong rate, ResourceError where the file cannot be written.
    """
    rate = _rate(fps)
    checked = _checked(frames)
    first = next(checked)
    height, width = first.shape[0] + first.shape[0] % 2, first.shape[1] + first.shape[1] % 2
    with (
        written_whole(path) as draft,
        av.open(str(draft), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options=_H264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        for image in itertools.chain([first], checked):
            even = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_gif(path: str | Path, frames: Iterable[np.ndarray], fps: float | Fraction) -> None:
    """Write uint8 frames (H W 3) as an endless GIF with one palette, its hundredths of a second kept true on average.

    Neighbouring frames that are alike are stored once and shown longer. Raises as `write_video` does.
    """
    rate = _rate(fps)
    images = [Image.fromarray(frame) for frame in _checked(frames)]
    thumbnails = np.concatenate(
        [np.asarray(image.resize((64, 64))) for image in images[:: math.ceil(len(images) / 32)]]
    )
    palette = Image.fromarray(thumbnails).quantize(256)
    ends = [round(100 * index / rate) for index in range(len(images) + 1)]
    with written_whole(path) as draft:
        first, *rest = (image.quantize(palette=palette) for image in images)
        first.save(
            draft,
            format="GIF",
            save_all=True,
            append_images=rest,
            duration=[10 * max(end - start, 2) for start, end in itertools.pairwise(ends)],
            loop=0,
        )


def _rate(fps: float | Fraction) -> Fraction:
    if not (math.isfinite(fps) and 0 < fps <= 1000):
        raise UsageError(f"fps: found {fps}, expected more than 0 and at most 1000")
    return Fraction(fps).limit_denominator(1001)


def _checked(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    shape = None
    for frame in frames:
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise UsageError(f"frames: found {frame.dtype} {frame.shape}, expected uint8 (height, width, 3) each")
        if shape not in (None, frame.shape):
            raise UsageError(f"frames: found {frame.shape} after {shape}, expected one size")
        shape = frame.shape
        yield np.ascontiguousarray(frame)
    if shape is None:
        raise UsageError("frames: found none, expected at least one")
