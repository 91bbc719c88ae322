"""Which frames of a video become the frames of a clip: by the times at which they are shown, or every so many.

At a rate, frame k of a clip is what is on the screen k / rate seconds after its first frame is. So a frame that
stands for long is taken several times, and several that pass between two instants are left out, whatever rate the
file claims. Containers round times to milliseconds, so that half of one is forgiven.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Protocol, TypeVar

TOLERANCE = Fraction(1, 2000)
_LATE = 3 * TOLERANCE  # an end is the sum of a time and a duration, which may itself be between two times


class Timed(Protocol):
    """Something shown from `time` on for `duration`, both in seconds; 0 where the duration is not known."""

    @property
    def time(self) -> Fraction: ...

    @property
    def duration(self) -> Fraction: ...


Shown = TypeVar("Shown", bound=Timed)


def at_rate(frames: Iterable[Shown], fps: Fraction, end: Fraction | None = None) -> Iterator[Shown]:
    """What is on the screen at the first frame's time, and at every 1 / fps seconds after it.

    The last frame stands for its duration, or if that is not known for as long as the one before, and no longer
    than until `end`. Frames come in ascending order of time; of two with one time only the later is on the screen.
    """
    frames = iter(frames)
    shown = next(frames, None)
    if shown is None:
        return
    start, tick, gap = shown.time, 0, 1 / fps
    for following in frames:
        while start + tick / fps < following.time - TOLERANCE:
            yield shown
            tick += 1
        gap = following.time - shown.time or gap
        shown = following
    until = shown.time + (shown.duration or gap)
    if end is not None:
        until = min(until, end)
    while tick == 0 or start + tick / fps < until - _LATE:
        yield shown
        tick += 1


def within(frames: Iterable[Shown], end: float | None) -> Iterator[Shown]:
    """The frames that begin before `end`, in seconds; reads one further at most."""
    for frame in frames:
        if end is not None and frame.time >= Fraction(end) - TOLERANCE:
            return
        yield frame


def mean_rate(times: Sequence[Fraction]) -> float | None:
    """Frames a second from the first to the last; None where no time passes."""
    seconds = times[-1] - times[0]
    return float((len(times) - 1) / seconds) if seconds > 0 else None


def longest_repeat(frames: Sequence[int]) -> int:
    """The length of the longest run of one number."""
    longest = run = 1
    for one, other in pairwise(frames):
        run = run + 1 if other == one else 1
        longest = max(longest, run)
    return longest


def lengthened(count: int, length: int, short: str) -> list[int]:
    """Places of `count` frames in a clip of `length`: the last one held, or all from the start again (`loop`)."""
    if short == "loop":
        return [place % count for place in range(length)]
    return [min(place, count - 1) for place in range(length)]
