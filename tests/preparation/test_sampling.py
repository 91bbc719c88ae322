"""Sampling: at every instant the frame that a viewer sees, in every container, whatever rate the header claims."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova.media.raster import Rasteriser
from nova.media.stream import open_video
from nova.preparation.sampling import at_rate, lengthened, longest_repeat, mean_rate, within
from tests.preparation.films import film, numbered, numbers


@dataclass(frozen=True)
class Shown:
    number: int
    time: Fraction
    duration: Fraction = Fraction(0)


def shown(times, last=0):
    """Frames at these seconds; the last one stands for `last` seconds."""
    times = [Fraction(time).limit_denominator(100_000) for time in times]
    lasts = [Fraction(0)] * (len(times) - 1) + [Fraction(last)]
    return [Shown(number, time, duration) for number, (time, duration) in enumerate(zip(times, lasts, strict=True))]


def taken(frames, fps, **options):
    return [frame.number for frame in at_rate(frames, Fraction(fps), **options)]


def test_even_rates_take_every_so_many():
    assert taken(shown([Fraction(k, 30) for k in range(12)]), 15) == [0, 2, 4, 6, 8, 10]
    assert taken(shown([Fraction(k, 24) for k in range(9)]), 12) == [0, 2, 4, 6, 8]
    assert taken(shown([Fraction(k, 12) for k in range(5)]), 12) == [0, 1, 2, 3, 4]


def test_uneven_rates_take_what_is_on_the_screen():
    assert taken(shown([Fraction(k, 25) for k in range(11)]), 12) == [0, 2, 4, 6, 8, 10]
    assert taken(shown([Fraction(k, 30) for k in range(11)]), 12) == [0, 2, 5, 7, 10]
    assert taken(shown([Fraction(k, 10) for k in range(3)]), 15) == [0, 0, 1, 2, 2]


def test_times_rounded_to_milliseconds_do_not_matter():
    rounded = [round(1000 * k / 30) / 1000 for k in range(60)]
    assert taken(shown(rounded), 15) == list(range(0, 60, 2))
    ntsc = [round(1001 * k / 30) / 1000 for k in range(60)]
    assert taken(shown(ntsc), Fraction(30000, 1001)) == list(range(60))


def test_of_two_frames_at_one_time_the_later_is_seen():
    assert taken(shown([0, 0, 0.1, 0.2, 0.2, 0.3]), 10) == [1, 2, 4, 5]


def test_times_may_start_anywhere():
    assert taken(shown([-0.25, -0.125, 0, 0.125, 0.25]), 4) == [0, 2, 4]


def test_the_last_frame_stands_for_its_duration_and_not_beyond_the_end():
    assert taken(shown([0, 0.1], last=0.4), 10) == [0, 1, 1, 1, 1]
    assert taken(shown([0, 0.1], last=0.4), 10, end=Fraction(3, 10)) == [0, 1, 1]
    assert taken(shown([0, 0.1]), 10) == [0, 1]
    assert taken(shown([5], last=0.01), 10) == [0]
    assert taken([], 10) == []


@settings(max_examples=200)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 60), st.integers(1, 500))
def test_at_every_instant_the_last_frame_that_has_begun(gaps, fps, last):
    times, clock = [], 0
    for gap in gaps:
        times.append(Fraction(clock, 100))
        clock += gap
    frames = shown(times, last=Fraction(last, 100))
    end = times[-1] + Fraction(last, 100)
    instants, tick = [], 0
    while tick == 0 or Fraction(tick, fps) < end - Fraction(3, 2000):
        instants.append(Fraction(tick, fps))
        tick += 1
    expected = [max(n for n, time in enumerate(times) if time <= t + Fraction(1, 2000)) for t in instants]
    assert taken(frames, fps) == expected


def test_nothing_is_read_beyond_what_is_needed():
    def endless():
        for number in range(10**9):
            assert number <= 9
            yield Shown(number, Fraction(number, 24))

    assert [frame.number for frame in islice(at_rate(endless(), Fraction(12)), 5)] == [0, 2, 4, 6, 8]


def test_helpers():
    frames = shown([0, 0.1, 0.2, 0.3])
    assert [frame.number for frame in within(frames, 0.2)] == [0, 1]
    assert [frame.number for frame in within(frames, None)] == [0, 1, 2, 3]
    assert mean_rate([Fraction(0), Fraction(1, 10), Fraction(1, 2)]) == 4
    assert mean_rate([Fraction(1)] * 3) is None
    assert longest_repeat([1, 1, 2, 2, 2, 3]) == 3
    assert lengthened(3, 7, "hold") == [0, 1, 2, 2, 2, 2, 2]
    assert lengthened(3, 7, "loop") == [0, 1, 2, 0, 1, 2, 0]


def times_and_numbers(data, start=0.0):
    """Every frame of a file from `start` on: its time, and the number it carries."""
    file, raster = io.BytesIO(data), Rasteriser()
    with open_video(file, "film") as video:
        found = [(frame.time, raster.rgb(frame.picture)) for frame in video.frames(start)]
    return [time for time, _ in found], numbers([pixels for _, pixels in found])


def sampled(data, fps, start=0.0):
    file, raster = io.BytesIO(data), Rasteriser()
    with open_video(file, "film") as video:
        return numbers([raster.rgb(frame.picture) for frame in at_rate(video.frames(start), Fraction(fps))])


B_FRAMES = {"bf": "3", "g": "12", "b_strategy": "0", "sc_threshold": "0"}
OPEN_GOP = {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0:b-adapt=0"}


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "webm", "avi", "mpegts", "flv"])
def test_every_frame_has_its_time_in_every_container(container):
    times, found = times_and_numbers(film(numbered(30), container))
    assert found == list(range(30))
    assert [abs(time - Fraction(number, 30)) <= Fraction(1, 1000) for number, time in enumerate(times)] == [True] * 30


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("options", [B_FRAMES, OPEN_GOP], ids=["b-frames", "open-gop"])
def test_frames_are_in_the_order_they_are_shown(container, options):
    data = film(numbered(36), container, codec="libx264", options=options)
    assert times_and_numbers(data)[1] == list(range(36))
    assert sampled(data, 15) == list(range(0, 36, 2))


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_uneven_times_are_followed_and_not_the_header(container):
    """Frame i is shown at i² / 64 s: gaps from 0.016 to 0.45 s, and a header that claims one rate for all."""
    squares = [i * i for i in range(16)]
    data = film(numbered(16), container, pts=squares, base=Fraction(1, 64), rate=64)
    times, found = times_and_numbers(data)
    assert found == list(range(16))
    assert all(abs(time - Fraction(i * i, 64)) <= Fraction(1, 1000) for i, time in enumerate(times))
    expected = [max(i for i in range(16) if i * i / 64 <= tick / 8 + 1e-3) for tick in range(29)]
    assert sampled(data, 8)[:29] == expected


@pytest.mark.parametrize(
    ("container", "options"),
    [("mp4", B_FRAMES), ("mp4", OPEN_GOP), ("matroska", B_FRAMES), ("mpegts", B_FRAMES), ("avi", {"g": "10"})],
)
def test_a_file_can_be_entered_anywhere(container, options):
    codec = "mpeg4" if container == "avi" else "libx264"
    data = film(numbered(36), container, codec=codec, options=options)
    for first in (0, 1, 9, 10, 11, 23, 35):
        times, found = times_and_numbers(data, first / 30)
        assert found == list(range(first, 36))
        assert abs(times[0] - Fraction(first, 30)) <= Fraction(1, 1000)
    assert times_and_numbers(data, 5.0) == ([], [])


def test_what_an_edit_list_cuts_off_is_not_shown():
    data = bytearray(film(numbered(20), "mp4", options={"bf": "0", "g": "5"}))
    start = data.index(b"elst")
    entries = int.from_bytes(data[start + 8 : start + 12], "big")
    assert entries == 1
    scale = int.from_bytes(data[data.index(b"mdhd") + 16 : data.index(b"mdhd") + 20], "big")
    shown_for = int.from_bytes(data[start + 12 : start + 16], "big") * 13 // 20
    data[start + 12 : start + 16] = shown_for.to_bytes(4, "big")
    data[start + 16 : start + 20] = (7 * scale // 30).to_bytes(4, "big")  # from frame 7 on
    times, found = times_and_numbers(bytes(data))
    assert found == list(range(7, 20))
    assert times[0] == 0
    assert times[-1] == pytest.approx(12 / 30)


def test_a_clock_that_starts_below_zero_or_late_is_set_to_zero():
    for offset in (-10, 300):
        pts = [offset + number for number in range(12)]
        times, found = times_and_numbers(film(numbered(12), "matroska", pts=pts, options={"bf": "0"}))
        assert found == list(range(12))
        assert times[0] == 0
        assert abs(times[-1] - Fraction(11, 30)) <= Fraction(1, 1000)
