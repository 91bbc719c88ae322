"""From an open media file to stretches of pixels in the sizes and lengths of the buckets, decoded once and in order.

Only frames that are taken are scaled, and nothing is decoded after the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nova.media.animation import animation_frames
from nova.media.files import kind
from nova.media.images import decode_image
from nova.media.raster import Rasteriser
from nova.media.stream import Frame, open_video
from nova.preparation.buckets import Box, Fit, Size, best_size, enlarged, fit, lengths_of, sizes_for
from nova.preparation.filters import Verdict, inside, judge_duration, judge_size, letterbox
from nova.preparation.items import Reason
from nova.preparation.rules import Rules
from nova.preparation.sampling import at_rate, lengthened, longest_repeat, mean_rate, within
from nova.preparation.scenes import scenes
from nova.preparation.vision import cv2

Pixels = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, eq=False)
class Cut:
    """A clip's pixels, and where they are from; see `items.Clip`."""

    frames: UInt8[np.ndarray, "f H W 3"]
    fps: float | None
    start: float | None
    end: float | None
    source_size: Size
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Unfit:
    """A stretch that is left out, or all of the file where `start` is None."""

    verdict: Verdict
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class _Framing:
    """How every frame of a stretch is fitted, and what is to be noted of it."""

    source: Size
    fit: Fit
    notes: tuple[str, ...]


def cuts(file: BinaryIO, name: str, start: float | None, end: float | None, rules: Rules) -> Iterator[Cut | Unfit]:
    """The clips of an open file, called `name` in messages, between `start` and `end` in seconds.

    Raises MediaError where the file cannot be read.
    """
    if kind(file) == "image":
        yield from _image_cuts(file, name, start, end, rules)
        return
    with open_video(file, name) as video:
        facts = video.facts
        if facts.height * facts.width > rules.max_pixels:
            found = f"found {facts.width}x{facts.height} pixels, expected {rules.max_pixels} or fewer"
            yield Unfit((Reason.TOO_MANY_PIXELS, found))
            return
        last = end if end is not None else facts.seconds
        if last is not None and (verdict := judge_duration(last - (start or 0), rules)):
            yield Unfit(verdict)
            return
        raster = Rasteriser(facts.aspect, rules.background, name)
        yield from _video_cuts(video.frames(start or 0.0), end, raster, rules)


def _image_cuts(
    file: BinaryIO, name: str, start: float | None, end: float | None, rules: Rules
) -> Iterator[Cut | Unfit]:
    picture = decode_image(file, name, rules.max_pixels, rules.background)
    if picture.several and rules.animations == "refuse":
        yield Unfit((Reason.ANIMATED, "found several pictures"))
    elif picture.several and rules.animations == "video":
        file.seek(0)
        frames = animation_frames(file, name, rules.max_pixels, rules.background)
        wanted = (frame for frame in frames if frame.time >= (start or 0))
        yield from _video_cuts(wanted, end, Rasteriser(), rules)
    else:
        source = picture.pixels.shape[:2]
        framing = _framing(source, picture.pixels, picture.notes, True, rules)
        if isinstance(framing, Unfit):
            yield framing
            return
        notes = (*framing.notes, "first_of_several") if picture.several else framing.notes
        yield Cut(_scaled(picture.pixels, framing.fit)[None], None, None, None, source, notes)


def _video_cuts(frames: Iterator[Frame], end: float | None, raster: Rasteriser, rules: Rules) -> Iterator[Cut | Unfit]:
    wanted = within(frames, end)
    stretches: Iterable[Iterator[Frame]] = (wanted,) if rules.scenes is None else scenes(wanted, rules.scenes, raster)
    found = False
    for stretch in stretches:
        for cut in _clips(stretch, end, raster, rules):
            found = True
            yield cut
    if not found:
        yield Unfit((Reason.TOO_SHORT, "found no frame between start and end"))


def _clips(stretch: Iterator[Frame], end: float | None, raster: Rasteriser, rules: Rules) -> Iterator[Cut | Unfit]:
    """One clip after the other from a stretch of one scene, until it or the number asked for is at its end."""
    if rules.fps is not None:
        rate = Fraction(rules.fps).limit_denominator(1001)
        taken = at_rate(stretch, rate, None if end is None else Fraction(end))
    else:
        taken = islice(stretch, 0, None, rules.stride)
    first = next(taken, None)
    if first is None:
        return
    framing = _video_framing(first, raster, rules)
    if isinstance(framing, Unfit):
        yield Unfit(framing.verdict, float(first.time), float(first.time + first.duration))
        return
    longest = lengths_of(framing.fit.size, False, rules)[-1]
    taken = chain([first], taken)
    for number in range(rules.clips):
        filled = _filled(islice(taken, longest), longest, framing, raster)
        if filled is None:
            return
        cut = _cut(filled, framing, rules)
        if isinstance(cut, Unfit) and number and cut.verdict[0] is Reason.TOO_SHORT:
            return  # what is left over when the others were cut
        yield cut


@dataclass(frozen=True, eq=False)
class _Filled:
    """Frames that were taken. sources: a number for each, the same for one that stands for several."""

    pixels: UInt8[np.ndarray, "f H W 3"]
    times: tuple[Fraction, ...]
    sources: tuple[int, ...]
    end: Fraction
    deinterlaced: bool


def _filled(taken: Iterator[Frame], longest: int, framing: _Framing, raster: Rasteriser) -> _Filled | None:
    """Up to `longest` frames as pixels; None where there are none."""
    pixels = np.empty((longest, *framing.fit.size, 3), np.uint8)
    times: list[Fraction] = []
    sources: list[int] = []
    last: Frame | None = None
    deinterlaced = False
    for place, frame in enumerate(taken):
        repeated = frame is last
        pixels[place] = pixels[place - 1] if repeated else _fitted(frame, framing.fit, raster)
        times.append(frame.time)
        sources.append(sources[-1] if repeated else place)
        deinterlaced |= frame.deinterlaced
        last = frame
    if last is None:
        return None
    return _Filled(pixels[: len(times)], tuple(times), tuple(sources), last.time + last.duration, deinterlaced)


def _cut(filled: _Filled, framing: _Framing, rules: Rules) -> Cut | Unfit:
    """The frames that were taken, in a length of the rules."""
    lengths, found = lengths_of(framing.fit.size, False, rules), len(filled.times)
    count = max((length for length in lengths if length <= found), default=0)
    used = count or found
    start, end = float(filled.times[0]), float(filled.times[used] if used < found else filled.end)
    if rules.fps is not None:
        end = start + used / rules.fps
    if not count and rules.short == "refuse":
        return Unfit((Reason.TOO_SHORT, f"found {found} frames, expected {lengths[0]} or more"), start, end)
    fps = rules.fps if rules.fps is not None else mean_rate(filled.times[:used])
    if fps is None:
        return Unfit((Reason.TIMESTAMPS, f"found {used} frames at one time"), start, end)
    repeat = longest_repeat(filled.sources[:used])
    if rules.longest_repeat is not None and repeat > rules.longest_repeat:
        said = f"found one frame {repeat} times in a row, expected {rules.longest_repeat} or fewer"
        return Unfit((Reason.REPEATED_FRAMES, said), start, end)
    pixels = filled.pixels[:used] if count else filled.pixels[lengthened(found, lengths[0], rules.short)]
    done = {
        "deinterlaced": filled.deinterlaced,
        "frames_repeated": repeat > 1,
        "last_frame_held": not count and rules.short == "hold",
        "looped": not count and rules.short == "loop",
    }
    notes = (*framing.notes, *(name for name, true in done.items() if true))
    return Cut(pixels, fps, start, end, framing.source, notes)


def _video_framing(frame: Frame, raster: Rasteriser, rules: Rules) -> _Framing | Unfit:
    pixels = raster.rgb(frame.picture) if rules.letterbox == "crop" else None
    return _framing(raster.size(frame.picture), pixels, raster.notes(frame.picture), False, rules)


def _framing(
    source: Size, pixels: Pixels | None, notes: tuple[str, ...], still: bool, rules: Rules
) -> _Framing | Unfit:
    """How pictures of size `source` are fitted; `pixels` of the first are looked at where bars are to be cut off."""
    sizes, box = sizes_for(still, rules), Box(0, 0, *source)
    if rules.letterbox == "crop" and pixels is not None:
        bars = letterbox([cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)])
        if bars is not None:
            box = inside(bars, source)
            notes = (*notes, "bars_cut_off")
    inner = (box.height, box.width)
    if verdict := judge_size(inner, sizes, rules):
        return Unfit(verdict)
    size = best_size(inner, sizes, rules.upscale)
    assert size is not None, "judge_size refuses what fits no size"
    done = {"enlarged": enlarged(inner, size), "scaled": inner != size}
    return _Framing(source, fit(source, size, box), (*notes, *(name for name, true in done.items() if true)))


def _fitted(frame: Frame, fit: Fit, raster: Rasteriser) -> Pixels:
    scaled = raster.rgb(frame.picture, fit.scaled)
    return scaled[fit.top : fit.top + fit.size[0], fit.left : fit.left + fit.size[1]]


def _scaled(pixels: Pixels, fit: Fit) -> Pixels:
    """The part of `pixels` that `fit` asks for, resampled at once."""
    down, across = pixels.shape[0] / fit.scaled[0], pixels.shape[1] / fit.scaled[1]
    box = (
        fit.left * across,
        fit.top * down,
        min((fit.left + fit.size[1]) * across, pixels.shape[1]),
        min((fit.top + fit.size[0]) * down, pixels.shape[0]),
    )
    image = Image.fromarray(pixels).resize((fit.size[1], fit.size[0]), Image.Resampling.LANCZOS, box)
    return np.asarray(image)
