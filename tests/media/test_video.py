"""Videos: exact sizes, counts and rates; the same bytes twice; nothing read that is not a whole, plain video file."""

import os
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from nova.errors import DataError, ResourceError, UsageError
from nova.media import read_video, write_gif, write_video


def moving_bar(count: int = 9, height: int = 48, width: int = 64) -> np.ndarray:
    """A bright bar that moves right over a coloured ground, (count height width 3)."""
    frames = np.full((count, height, width, 3), (40, 90, 160), np.uint8)
    for index in range(count):
        frames[index, 8:20, 4 * index : 4 * index + 8] = (250, 240, 230)
    return frames


@pytest.fixture
def clip_file(tmp_path):
    write_video(tmp_path / "clip.mp4", moving_bar(), 12)
    return tmp_path / "clip.mp4"


def test_reading_gives_back_what_was_written(clip_file):
    clip = read_video(clip_file)
    assert clip.frames.shape == (9, 48, 64, 3)
    assert clip.fps == 12
    assert abs(clip.frames.astype(int) - moving_bar()).mean() < 1.1


@pytest.mark.parametrize("colour", [(255, 40, 40), (45, 210, 60), (55, 100, 255), (255, 255, 255), (0, 0, 0)])
def test_colours_survive(tmp_path, colour):
    write_video(tmp_path / "a.mp4", np.broadcast_to(np.array(colour, np.uint8), (3, 16, 16, 3)), 8)
    assert abs(read_video(tmp_path / "a.mp4").frames.astype(int) - colour).max() <= 3


def test_the_file_is_what_a_browser_plays(clip_file):
    data = clip_file.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "playable from its first bytes"
    with av.open(str(clip_file)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.profile, stream.pix_fmt) == ("h264", "High", "yuv420p")
        assert stream.codec_context.colorspace == 1
        assert stream.duration * stream.time_base == Fraction(9, 12)


def test_the_same_frames_give_the_same_bytes(tmp_path, clip_file):
    write_video(tmp_path / "again.mp4", iter(moving_bar()), 12.0)
    assert (tmp_path / "again.mp4").read_bytes() == clip_file.read_bytes()


WRITE_FAINT_NOISE = """
import sys, numpy
from nova.media import write_video
write_video(sys.argv[1], numpy.random.default_rng(1).integers(0, 4, (5, 64, 96, 3), dtype=numpy.uint8), 12)
"""


def test_what_memory_held_before_does_not_matter(tmp_path):
    files = [tmp_path / f"{fill}.mp4" for fill in (0, 85, 170)]
    for file in files:  # glibc fills memory it hands out with the complement of MALLOC_PERTURB_
        command = [sys.executable, "-c", WRITE_FAINT_NOISE, str(file)]
        subprocess.run(command, env=os.environ | {"MALLOC_PERTURB_": file.stem}, check=True)
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 65), (33, 17), (64, 3), (65, 65)])
def test_odd_sizes_gain_a_copied_edge(tmp_path, height, width):
    frames = moving_bar(2, 65, 65)[:, -height:, :width]
    write_video(tmp_path / "a.mp4", frames, 12)
    shown = read_video(tmp_path / "a.mp4").frames.astype(int)
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    assert shown.shape == padded.shape
    assert abs(shown - padded).mean() < 4


@pytest.mark.parametrize("fps", [1, 12.5, 23.976, Fraction(30000, 1001), 60])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_counts_and_rates_are_exact(tmp_path, fps, count):
    write_video(tmp_path / "a.mp4", moving_bar(count), fps)
    clip = read_video(tmp_path / "a.mp4")
    assert len(clip.frames) == count
    assert clip.fps == pytest.approx(float(fps), abs=1e-3)


def test_reading_stops_at_max_frames(clip_file):
    assert (read_video(clip_file, max_frames=4).frames == read_video(clip_file).frames[:4]).all()
    with pytest.raises(UsageError, match="max_frames"):
        read_video(clip_file, max_frames=0)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1, axes=(1, 2))),
        ((-1, 0, 0, -1), lambda image: image[:, ::-1, ::-1]),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1, axes=(1, 2))),
        ((-1, 0, 0, 1), lambda image: image[:, :, ::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(0, 2, 1, 3)),
    ],
    ids=["90", "180", "270", "mirrored", "transposed"],
)
def test_a_turned_clip_is_shown_upright(clip_file, matrix, turn):
    flat = read_video(clip_file).frames
    data = bytearray(clip_file.read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    clip_file.write_bytes(data)
    assert (read_video(clip_file).frames == turn(flat)).all()


def test_a_truncated_video_is_refused(clip_file):
    data = clip_file.read_bytes()
    for length in np.linspace(0, len(data) - 1, 60).astype(int):
        clip_file.write_bytes(data[:length])
        with pytest.raises(DataError, match=str(clip_file)):
            read_video(clip_file)


def test_a_playlist_named_mp4_opens_no_other_file(tmp_path, clip_file):
    for script in (
        f"ffconcat version 1.0\nfile {clip_file.name}\n",
        f"#EXTM3U\n#EXTINF:1,\n{clip_file.name}\n",
        f'<?xml version="1.0"?><MPD><BaseURL>{clip_file.name}</BaseURL></MPD>',
    ):
        (tmp_path / "a.mp4").write_text(script)
        with pytest.raises(DataError, match=r"playlist|XML"):
            read_video(tmp_path / "a.mp4")


def test_only_regular_files_with_pictures_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path, tmp_path / "pipe.mp4", tmp_path / "nowhere.mp4", "concat:a.mp4|b.mp4", "http://127.0.0.1/a"):
        with pytest.raises(DataError, match="file"):
            read_video(path)
    (tmp_path / "a.mp4").write_text("not a video")
    with pytest.raises(DataError, match="found text"):
        read_video(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="no video stream"):
        read_video(tmp_path / "sound.mp4")


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    frames = moving_bar(2)
    path = tmp_path / "a.mp4"
    for wrong, rate, message in (
        ([], 12, "found none"),
        (frames / 255, 12, "float64"),
        ([frames[0], frames[0, :8]], 12, "one size"),
        (frames, 0, "fps"),
        (frames, float("nan"), "fps"),
    ):
        for write in (write_video, write_gif):
            with pytest.raises(UsageError, match=message):
                write(path, wrong, rate)
    with pytest.raises(UsageError, match="does not exist"):
        write_video(tmp_path / "no" / "a.mp4", frames, 12)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_earlier_file(tmp_path, clip_file):
    before = clip_file.read_bytes()

    def failing():
        yield moving_bar(1)[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match="no space left"):
        write_video(clip_file, failing(), 12)
    assert clip_file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [clip_file]


def test_a_gif_shows_the_frames_at_their_rate(tmp_path):
    write_gif(tmp_path / "a.gif", moving_bar(7), 12)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 7
        total = 0
        for index, frame in enumerate(moving_bar(7)):
            image.seek(index)
            total += image.info["duration"]
            assert abs(np.asarray(image.convert("RGB")).astype(int) - frame).mean() < 2
        assert total == pytest.approx(7000 / 12, abs=10)
        assert image.info["loop"] == 0


def test_pixels_are_made_square(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        for image in moving_bar(3, 48, 32):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    assert read_video(tmp_path / "a.mp4").frames.shape == (3, 48, 64, 3)
