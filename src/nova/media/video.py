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
from av.sidedata.sidedata import SideData
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from nova.errors import DataError, UsageError
from nova.files import written_whole
from nova.media.files import contents, opened

CONTAINERS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "ogg", "flv", "gif", "yuv4mpegpipe")
"""What is read, by content. No playlists, image sequences or scripts: those make FFmpeg open other files."""

MAX_PIXELS = 64_000_000

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

    Frames are upright (quarter turns and mirrors of the display matrix) with square pixels; `max_frames` bounds
    the memory. Raises DataError for anything that is not a regular file in one of CONTAINERS, and for one without
    video, damaged, cut short or with more than MAX_PIXELS a frame.
    """
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"max_frames: found {max_frames}, expected 1 or more")
    options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    with opened(path) as file:
        try:
            with av.open(file, "r", options=options, metadata_errors="replace") as container:
                return _decoded(container, path, max_frames)
        except DataError:
            raise
        except Exception as error:  # PyAV raises OSError, EOFError, ValueError, IndexError, UnicodeDecodeError, ...
            reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
            found = contents(file)
            raise DataError(f"{path}: cannot be read as a video ({reason}); found {found}") from error


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


def _decoded(container: av.container.InputContainer, path: str | Path, max_frames: int | None) -> Clip:
    if not container.streams.video:
        raise DataError(f"{path}: has no video stream; give a file with pictures")
    stream = container.streams.video[0]
    if stream.codec_context is None or not stream.width * stream.height:
        raise DataError(f"{path}: has a damaged header; get a whole copy")
    if stream.width * stream.height > MAX_PIXELS:
        raise DataError(f"{path}: has {stream.width}x{stream.height} pixels a frame, more than {MAX_PIXELS}")
    frames: list[np.ndarray] = []
    for frame in itertools.islice(container.decode(stream), max_frames):
        if frame.is_corrupt:
            raise DataError(f"{path}: frame {len(frames)} is damaged; get a whole copy")
        frames.append(_upright_rgb(frame, stream.sample_aspect_ratio))
    if not frames:
        raise DataError(f"{path}: holds no frames; get a whole copy")
    if len(frames) < min(stream.frames, max_frames or stream.frames):
        raise DataError(f"{path}: promises {stream.frames} frames and holds {len(frames)}; get a whole copy")
    rate = stream.average_rate or stream.guessed_rate
    if rate is None:
        raise DataError(f"{path}: does not say its frame rate; write it anew with one")
    return Clip(np.stack(frames), float(rate))


def _upright_rgb(frame: av.VideoFrame, aspect: Fraction | None) -> np.ndarray:
    width = round(frame.width * aspect) if aspect else frame.width
    image = frame.reformat(width=width, format="rgb24").to_ndarray()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return image
    # Row-major 3x3 of 16.16 numbers: x' = a x + c y, y' = b x + d y, with a, b in the first row and c, d in the second.
    a, b, _, c, d = (round(value / 65536) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if (abs(a), abs(b), abs(c), abs(d)) == (0, 1, 1, 0):
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: d or 1, :: a or 1]
