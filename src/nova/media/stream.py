"""Videos frame by frame, with exact times: decoded once, in order, nothing kept.

Times are seconds since the file's start, as players count them: edit lists are followed, and what a file's clock
shows at its start is taken off. Every fault found on the way is a MediaError of one line.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, overload

import av
from av.filter import Graph

from nova.errors import NovaError
from nova.media.faults import Fault, MediaError
from nova.media.files import EMPTY, claimed_codecs, contents, kind
from nova.media.raster import refuse_hdr, refuse_unknown_matrix

CONTAINERS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "ogg", "flv", "gif", "yuv4mpegpipe")
"""What is read, by content. No playlists, image sequences or scripts: those make FFmpeg open other files."""

MAX_PIXELS = 64_000_000

_BACK = (0, 4, 30, 240, None)  # seconds before the wanted start to enter at, tried in turn; None: the file's start
_EARLY = Fraction(1, 2000)  # half of the millisecond to which containers and tables round times
_WIDEST = 16
_BUFFER = 1 << 18
_TAGGED = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded frame as the decoder holds it.

    time: seconds from the file's start.  duration: seconds, 0 if unknown.  deinterlaced: made from two fields.
    """

    picture: av.VideoFrame
    time: Fraction
    duration: Fraction
    deinterlaced: bool = False


@dataclass(frozen=True)
class VideoFacts:
    """What a header says; None for what it does not say.

    height, width: as stored.  aspect: width of a stored pixel over its height.  fps: average.  duration: seconds
    of the pictures alone.  seconds: of the longest stream, where the pictures' own are not said.
    """

    height: int
    width: int
    aspect: Fraction
    fps: Fraction | None
    duration: float | None
    seconds: float | None
    frames: int | None
    codec: str


class Video:
    """An open video: what its header says (`facts`) and its `frames`."""

    def __init__(self, container: av.container.InputContainer, name: str | Path, file: BinaryIO) -> None:
        self._container, self._name = container, name
        if not len(container.streams):
            raise MediaError(f"{name}: holds no streams; get a whole copy")
        if not container.streams.video:
            raise MediaError(f"{name}: has no video stream; give a file with pictures", Fault.NO_VIDEO)
        self._stream = stream = container.streams.video[0]
        if stream.codec_context is None:
            found = f"its codec ({claimed_codecs(file)}) is not in the FFmpeg of this PyAV"
            hint = "convert it to H.264, or install PyAV with an FFmpeg that has it"
            raise MediaError(f"{name}: {found}; {hint}", Fault.CODEC)
        if not stream.width * stream.height:
            raise MediaError(f"{name}: has a header without a size that can be read; get a whole copy")
        if stream.width * stream.height > MAX_PIXELS:
            message = f"{name}: has {stream.width}x{stream.height} pixels a frame, more than {MAX_PIXELS}"
            raise MediaError(message, Fault.TOO_MANY_PIXELS)
        refuse_hdr(stream.codec_context.color_trc, str(name))
        refuse_unknown_matrix(stream.codec_context.colorspace, str(name))
        stream.codec_context.thread_count = 1  # work is spread over files; and what is decoded first does not vary
        self.facts = VideoFacts(
            height=stream.height,
            width=stream.width,
            aspect=self._aspect(),
            fps=stream.average_rate or stream.guessed_rate,
            duration=self._duration(),
            seconds=self._duration() or (container.duration / 1_000_000 if container.duration else None),
            frames=stream.frames or None,
            codec=stream.codec_context.name,
        )

    def frames(self, start: float = 0.0) -> Iterator[Frame]:
        """The frames in the order they are shown, interlaced ones made whole; from the first at `start` or later.

        Frames before `start` are skipped where the file can be entered later. A file that is read to its end has
        to hold what its header promises. Raises MediaError where something is damaged or times go back.
        """
        with _told(self._name, None):
            last: Fraction | None = None
            for frame, mended in _deinterlaced(self._decoded(start)):
                timed = self._timed(frame, last, mended)
                if last is not None and timed.time < last:
                    message = f"{self._name}: its times go back from {float(last):.3f} to {float(timed.time):.3f} s"
                    raise MediaError(f"{message}; write it anew", Fault.TIMESTAMPS)
                last = timed.time
                yield timed

    def _decoded(self, start: float) -> Iterator[av.VideoFrame]:
        if start <= 0:
            yield from self._checked(None)
            return
        wanted = Fraction(start) + self._origin() - _EARLY
        for back in _BACK:
            self._enter(None if back is None else wanted - back)
            frames = self._checked(wanted)
            first = next(frames, None)
            if first is not None and (back is None or self._clock(first, wanted) <= wanted):
                break
        if first is None:
            return
        for frame in itertools.chain([first], frames):
            if self._clock(frame, wanted) >= wanted:
                yield frame

    def _enter(self, clock: Fraction | None) -> None:
        """Go on from the last key frame before `clock`, or from the file's first; stay where that cannot be done."""
        base = self._stream.time_base or Fraction(1, 1_000_000)
        with contextlib.suppress(av.error.FFmpegError):
            if clock is None:
                self._container.seek(0, backward=True)
            else:
                self._container.seek(int(clock / base), stream=self._stream, backward=True)

    def _checked(self, since: Fraction | None) -> Iterator[av.VideoFrame]:
        """Frames as decoded, where the file stands; from its first to its last if `since` is None.

        Frames before `since` may be damaged, as those are that lean on one before the place of entry.
        """
        packets, end, size = 0, Fraction(0), None
        for packet in self._container.demux(self._stream):
            if packet.is_corrupt:
                raise MediaError(f"{self._name}: is cut short or damaged after {packets} frames; get a whole copy")
            packets += bool(packet.size)
            for frame in packet.decode():
                clock = self._clock(frame, None)
                if frame.is_corrupt and (since is None or clock is None or clock >= since):
                    raise MediaError(f"{self._name}: has a damaged frame after {packets} packets; get a whole copy")
                if size is None:
                    refuse_hdr(frame.color_trc, str(self._name))
                elif size != (frame.height, frame.width):
                    change = f"{size[1]}x{size[0]} to {frame.width}x{frame.height}"
                    raise MediaError(f"{self._name}: its frames change size from {change}; cut it there")
                size = frame.height, frame.width
                if clock is not None:
                    # Matroska's durations count from the clock's zero, others from the first frame.
                    end = max(end, clock + self._length(frame) - min(self._origin(), Fraction(0)))
                yield frame
        if since is None:
            if size is None:
                raise MediaError(f"{self._name}: holds no frames; get a whole copy")
            self._refuse_short(packets, float(end))

    def _refuse_short(self, packets: int, end: float) -> None:
        """A file is short if fewer frames and less time are in it than its header says, where it says both."""
        promised, duration = self._stream.frames, self.facts.duration
        few = promised > packets if promised else None
        tolerance = 0.6 / float(self.facts.fps or 10)
        brief = end < duration - tolerance if duration is not None and end else None
        if (few is None or few) and (brief is None or brief) and (few or brief):
            said = f"{promised} frames" if promised else f"{duration:.2f} s"
            held = packets if promised else f"{end:.2f}"
            raise MediaError(f"{self._name}: promises {said} and holds {held}; get a whole copy")

    def _timed(self, frame: av.VideoFrame, last: Fraction | None, mended: bool) -> Frame:
        clock, length = self._clock(frame, None), self._length(frame)
        if clock is not None:
            return Frame(frame, clock - self._origin(), length, mended)
        if not length:
            message = f"{self._name}: says neither the times of its frames nor its rate; write it anew with one"
            raise MediaError(message, Fault.TIMESTAMPS)
        return Frame(frame, Fraction(0) if last is None else last + length, length, mended)

    def _length(self, frame: av.VideoFrame) -> Fraction:
        """Seconds for which `frame` is shown, as it or the mean rate says; 0 if neither does."""
        said = frame.duration * (frame.time_base or Fraction(0))
        return said or (1 / self.facts.fps if self.facts.fps else Fraction(0))

    @overload
    def _clock(self, frame: av.VideoFrame, otherwise: Fraction) -> Fraction: ...

    @overload
    def _clock(self, frame: av.VideoFrame, otherwise: None) -> Fraction | None: ...

    def _clock(self, frame: av.VideoFrame, otherwise: Fraction | None) -> Fraction | None:
        """When `frame` is shown, on the file's clock, in seconds."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        base = frame.time_base or self._stream.time_base
        return stamp * base if stamp is not None and base is not None else otherwise

    def _origin(self) -> Fraction:
        """What the file's clock shows when it starts, in seconds."""
        base, first = self._stream.time_base, self._stream.start_time
        own = first * base if first is not None and base is not None else None
        if self._container.start_time is None:
            return own or Fraction(0)
        shared = Fraction(self._container.start_time, 1_000_000)
        # The container's clock has microseconds, which would shift frames of 1/30 s.
        return own if own is not None and abs(own - shared) <= Fraction(1, 500_000) else shared

    def _aspect(self) -> Fraction:
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        if not Fraction(1, _WIDEST) <= aspect <= _WIDEST:
            raise MediaError(f"{self._name}: has pixels {aspect} as wide as high; write it anew with square ones")
        return aspect

    def _duration(self) -> float | None:
        """Seconds from the start to the end of the last frame, if the header tells them for the pictures alone."""
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if tag := _TAGGED.fullmatch(stream.metadata.get("DURATION", "")):  # Matroska's statistics
            return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
        if len(self._container.streams) == 1 and self._container.duration:
            return self._container.duration / 1_000_000
        return None


@contextmanager
def open_video(file: BinaryIO, name: str | Path) -> Iterator[Video]:
    """An open file as a video, called `name` in messages; only this file is read, and no network.

    Raises MediaError for anything that is not a video in one of CONTAINERS, for HDR, and for more than MAX_PIXELS a
    frame. What goes wrong in the block that uses it is not touched; `Video.frames` tells its own faults.
    """
    options = {
        "format_whitelist": ",".join(CONTAINERS),
        "protocol_whitelist": "file",
        "max_pixels": str(MAX_PIXELS),
    }
    with contextlib.ExitStack() as stack:
        with _told(name, file):
            container = av.open(file, "r", options=options, metadata_errors="replace", buffer_size=_BUFFER)
            video = Video(stack.enter_context(container), name, file)
        yield video


@contextmanager
def _told(name: str | Path, file: BinaryIO | None) -> Iterator[None]:
    """PyAV raises OSError, EOFError, ValueError, IndexError, UnicodeDecodeError, ...: all become one line."""
    try:
        yield
    except NovaError:
        raise
    except Exception as error:
        why = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        if file is None:
            raise MediaError(f"{name}: is truncated or damaged ({why}); get a whole copy") from error
        found = contents(file)
        fault = Fault.EMPTY_FILE if found == EMPTY else Fault.DAMAGED if kind(file) == "video" else Fault.NOT_MEDIA
        raise MediaError(f"{name}: cannot be read as a video ({why}); found {found}", fault) from error


def _deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, bool]]:
    """From the first interlaced frame on, whole frames at the same times, from both fields (yadif)."""
    graph: Graph | None = None
    for frame in frames:
        if graph is None:
            if not frame.interlaced_frame:
                yield frame, False
                continue
            graph = Graph()
            source = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            )
            yadif = graph.add("yadif", "mode=send_frame:deint=interlaced")
            sink = graph.add("buffersink")
            source.link_to(yadif)
            yadif.link_to(sink)
            graph.configure()
        graph.vpush(frame)
        yield from ((whole, True) for whole in _pulled(graph))
    if graph is not None:
        graph.vpush(None)
        yield from ((whole, True) for whole in _pulled(graph))


def _pulled(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
