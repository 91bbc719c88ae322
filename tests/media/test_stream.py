"""Streams: colours, shapes and fields come out right; what cannot is refused; nothing that is cut short passes."""

from __future__ import annotations

import io
import random
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from PIL import Image
from tests.preparation.films import film, mutated, numbered, numbers

from nova.media.faults import Fault, MediaError
from nova.media.files import Section, kind
from nova.media.raster import Rasteriser
from nova.media.stream import open_video

BARS = [
    (255, 255, 255), (255, 255, 0), (0, 255, 255), (0, 255, 0), (255, 0, 255), (255, 0, 0), (0, 0, 255), (0, 0, 0),
    (128, 128, 128), (200, 60, 30),
]  # fmt: skip
LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Weights of red and blue by the matrix' number in ITU-T H.273."""


def planes(matrix: int, full: bool, bits: int) -> list[np.ndarray]:
    """Bars of 32 by 64 pixels in Y'CbCr, computed by the standards' formulas."""
    red, blue = LUMA[matrix]
    image = np.repeat(np.repeat(np.array([BARS], float) / 255, 64, axis=0), 32, axis=1)
    luma = red * image[..., 0] + (1 - red - blue) * image[..., 1] + blue * image[..., 2]
    chroma = [(image[..., 2] - luma) / 2 / (1 - blue), (image[..., 0] - luma) / 2 / (1 - red)]
    most, step = 2**bits - 1, 2 ** (bits - 8)
    if full:
        values = [luma * most, *(each * most + 2 ** (bits - 1) for each in chroma)]
    else:
        values = [(219 * luma + 16) * step, *((224 * each + 128) * step for each in chroma)]
    return [np.clip(np.rint(each), 0, most).astype(np.uint16 if bits > 8 else np.uint8) for each in values]


def bars_film(matrix: int, full: bool, format: str, transfer: int = 2) -> bytes:
    """One frame of bars, stored without loss."""
    luma, *chroma = planes(matrix, full, 10 if "10" in format else 8)
    if "420" in format:
        chroma = [each[::2, ::2] for each in chroma]
    elif "422" in format:
        chroma = [each[:, ::2] for each in chroma]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = *luma.shape, format
        context = stream.codec_context
        context.colorspace, context.color_trc = matrix, transfer
        context.color_range = ColorRange.JPEG if full else ColorRange.MPEG
        frame = av.VideoFrame(luma.shape[1], luma.shape[0], format)
        frame.colorspace, frame.color_range, frame.color_trc = matrix, context.color_range, transfer
        for plane, values in zip(frame.planes, (luma, *chroma), strict=True):
            rows = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
            padded = np.zeros((len(rows), plane.line_size), np.uint8)
            padded[:, : rows.shape[1]] = rows
            plane.update(padded.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def shown(data: bytes, size: tuple[int, int] | None = None, **options: object) -> list[np.ndarray]:
    """All frames of a file, as they come out."""
    with open_video(io.BytesIO(data), "film") as video:
        raster = Rasteriser(video.facts.aspect, **options)
        return [raster.rgb(frame.picture, size) for frame in video.frames()]


@pytest.mark.parametrize("format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", LUMA)
def test_colour_bars_come_out_within_two(matrix, full, format):
    data = bars_film(matrix, full, format)
    for size in (None, (32, 160)):
        image = shown(data, size)[0]
        middles = image[len(image) // 2, image.shape[1] // 20 :: image.shape[1] // 10].astype(int)
        assert abs(middles - BARS).max() <= 2


def test_what_is_scaled_down_is_near_lanczos():
    rng = np.random.default_rng(0)
    noise = sum(
        cv2.GaussianBlur(rng.normal(size=(360, 640, 3)).astype(np.float32), (0, 0), sigma) * sigma
        for sigma in (1, 3, 9, 27)
    )
    picture = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
    raster = Rasteriser()
    whole = Image.fromarray(raster.rgb(frame))
    for height, width in ((240, 426), (120, 213), (90, 160)):
        lanczos = np.asarray(whole.resize((width, height), Image.Resampling.LANCZOS)).astype(float)
        error = np.square(raster.rgb(frame, (height, width)) - lanczos).mean()
        assert 10 * np.log10(255**2 / error) > 42


def test_untagged_colours_are_those_that_players_show():
    """BT.601 below HD, BT.709 from there on."""
    for height, matrix in ((64, 5), (720, 1)):
        luma, *chroma = (np.repeat(each, height // 64 + 1, axis=0)[:height] for each in planes(matrix, False, 8))
        frame = av.VideoFrame(luma.shape[1], height, "yuv444p")
        for plane, values in zip(frame.planes, (luma, *chroma), strict=True):
            padded = np.zeros((height, plane.line_size), np.uint8)
            padded[:, : luma.shape[1]] = values
            plane.update(padded.tobytes())
        assert abs(Rasteriser().rgb(frame)[height // 2, 16::32].astype(int) - BARS).max() <= 2


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused_by_name(transfer, name):
    with pytest.raises(MediaError, match=name) as refusal:
        shown(bars_film(9, False, "yuv420p10le", transfer))
    assert refusal.value.fault is Fault.HDR


def test_transparent_frames_are_laid_on_the_background():
    image = np.zeros((16, 32, 4), np.uint8)
    image[:, :, 0], image[:, 16:, 3] = 200, 255
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as container:
        stream = container.add_stream("qtrle", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "argb"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba").reformat(format="argb")))
        container.mux(stream.encode(None))
    for ground in ((255, 255, 255), (10, 20, 30)):
        pixels = shown(buffer.getvalue(), background=ground)[0]
        assert (pixels[:, :14] == ground).all()
        assert (pixels[:, 18:] == (200, 0, 0)).all()


def comb(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two moments in one frame: the first in the even rows, the second in the odd ones."""
    woven = first.copy()
    woven[1::2] = second[1::2]
    return woven


def bar_at(left: int) -> np.ndarray:
    image = np.full((64, 96, 3), 40, np.uint8)
    image[:, left : left + 16] = 220
    return image


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "libx264", {"x264-params": "interlaced=1:tff=1", "crf": "4"}),
        ("mpegts", "mpeg2video", {"field_order": "tt", "top": "1"}),
    ],
)
def test_interlaced_frames_are_made_whole(container, codec, options):
    woven = [comb(bar_at(6 * number), bar_at(6 * number + 3)) for number in range(8)]
    data = film(woven, container, rate=25, codec=codec, options={**options, "flags": "+ilme+ildct"})
    with open_video(io.BytesIO(data), "film") as video:
        found = list(video.frames())
    assert [frame.deinterlaced for frame in found] == [True] * 8
    assert [frame.time for frame in found] == [Fraction(number, 25) for number in range(8)]
    pixels = [Rasteriser().rgb(frame.picture).astype(int) for frame in found]
    combed = abs(woven[4][2:-2:2].astype(int) - woven[4][3:-1:2]).mean()
    assert abs(pixels[4][2:-2:2] - pixels[4][3:-1:2]).mean() < combed / 4


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(4, 3)])
def test_pixels_become_square(aspect):
    data = film(numbered(2, 48, 64), "mp4", sample_aspect_ratio=aspect)
    assert shown(data)[0].shape == (48, round(64 * aspect), 3)


def test_absurd_pixels_and_sizes_are_refused_by_the_header():
    header = bytearray(film(numbered(1, 16, 16), "avi", codec="rawvideo", pix_fmt="bgr24"))
    start = header.index(b"strf") + 8
    header[start + 4 : start + 12] = (20_000).to_bytes(4, "little") * 2
    began = time.process_time()
    with pytest.raises(MediaError, match="20000x20000|size that can"):
        shown(bytes(header))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("container", ["mp4", "matroska", "webm", "mpegts"])
def test_a_file_inside_another_reads_the_same(container, tmp_path):
    data = film(numbered(8), container)
    (tmp_path / "a.tar").write_bytes(b"before" * 100 + data + b"after" * 100)
    with (tmp_path / "a.tar").open("rb") as file:
        section = io.BufferedReader(Section(file, 600, len(data)))
        assert section.read() == data
        assert kind(section) == "video"
        with open_video(section, "member") as video:
            found = numbers([Rasteriser().rgb(frame.picture) for frame in video.frames()])
    assert found == list(range(8))


def test_faults_are_told_apart():
    sound = io.BytesIO()
    with av.open(sound, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    good = film(numbered(6))
    for data, fault in (
        (b"", Fault.EMPTY_FILE),
        (b"<html>", Fault.NOT_MEDIA),
        (good[: len(good) // 2], Fault.DAMAGED),
        (sound.getvalue(), Fault.NO_VIDEO),
        (b"ID3" + bytes(200), Fault.NOT_MEDIA),
        (good.replace(b"avc1", b"zzz1"), Fault.CODEC),
    ):
        with pytest.raises(MediaError) as refusal:
            shown(data)
        assert refusal.value.fault is fault
        assert "\n" not in str(refusal.value)


def test_times_that_go_back_are_refused():
    data = film(numbered(20), "matroska", options={"bf": "0"})
    fifteenth = b"\x81" + (500).to_bytes(2, "big") + b"\x00"
    assert data.count(fifteenth) == 1
    with pytest.raises(MediaError, match=r"0\.467 to 0\.100") as refusal:
        shown(data.replace(fifteenth, b"\x81" + (100).to_bytes(2, "big") + b"\x00"))
    assert refusal.value.fault is Fault.TIMESTAMPS


@pytest.mark.parametrize(
    ("container", "codec", "other"),
    [("mp4", b"avc1", b"zzz1"), ("matroska", b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/ZZZ")],
)
def test_a_codec_that_is_not_there_is_named(container, codec, other):
    with pytest.raises(MediaError, match=f"{other.decode()}.*convert it") as refusal:
        shown(film(numbered(3), container).replace(codec, other))
    assert refusal.value.fault is Fault.CODEC


def outcome(data: bytes, whole: int) -> str:
    """What reading `data` to its end gives; a file of `whole` frames that reads well holds that many."""
    try:
        with open_video(io.BytesIO(data), "film") as video:
            return "whole" if sum(1 for _ in video.frames()) == whole else "short"
    except MediaError:
        return "refused"


@pytest.mark.parametrize("container", ["mp4", "matroska", "webm"])
def test_a_file_that_is_cut_short_is_refused(container):
    fragile = {"movflags": "+faststart"} if container == "mp4" else {}
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(12)]
    data = film(noise, container, muxer=fragile)
    ends = np.linspace(0, len(data) - 1, 100).astype(int)
    found = [outcome(data[:end], 12) for end in ends]
    assert "short" not in found
    assert found.count("whole") <= 3, "only what comes after the last frame may be missing"


def mutations(count: int) -> dict[str, int]:
    rng, found = random.Random(0), {"whole": 0, "refused": 0, "short": 0}
    files = [film(numbered(6, 32, 32), container) for container in ("mp4", "matroska", "webm")]
    for number in range(count):
        found[outcome(mutated(files[number % 3], rng), 6)] += 1
    return found


def test_mutated_files_are_whole_or_refused():
    began, found = time.process_time(), mutations(300)
    assert sum(found.values()) == 300
    assert found["refused"] > 60
    assert time.process_time() - began < 60, "no endless loops"


@pytest.mark.slow
def test_six_thousand_mutated_files_are_whole_or_refused():
    assert sum(mutations(6000).values()) == 6000
