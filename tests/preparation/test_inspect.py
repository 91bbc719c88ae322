"""One item from file to clips: exact frames at exact sizes, a reason for everything else, decoded no further."""

from __future__ import annotations

import io
import random
import struct
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from nova.media.faults import Fault
from nova.preparation.inspect import inspect
from nova.preparation.items import BytesMedia, Clip, FileMedia, MemberMedia, Reason, Refusal
from nova.preparation.rules import Captions, Rules, ScoreRange, buckets_of, paper
from tests.preparation.films import CODECS, film, item_of, mutated, numbered, numbers
from tests.preparation.test_scenes import scene

RULES = Rules(buckets=buckets_of([(48, 64)], (5, 9, 1)), fps=15)


def clips(item, rules=RULES):
    """The clips of an item of which nothing is refused."""
    found = list(inspect(item, rules))
    assert all(isinstance(each, Clip) for each in found), found
    return found


def refusal(item, rules=RULES):
    """Why all of an item is refused."""
    (found,) = inspect(item, rules)
    assert isinstance(found, Refusal), found
    assert found.id == item.id
    assert found.detail.isprintable()
    return found


def png(height, width, **options):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize("container", CODECS)
def test_clips_hold_the_frames_of_their_times(tmp_path, container):
    (clip,) = clips(item_of(tmp_path / "a", film(numbered(30), container)))
    assert numbers(clip.frames) == list(range(0, 18, 2))
    assert clip.frames.shape == (9, 48, 64, 3)
    assert (clip.id, clip.fps, clip.start) == ("a", 15, 0)
    assert clip.end == pytest.approx(9 / 15)
    assert clip.source_size == (48, 64)


def test_a_stretch_is_taken_from_its_start(tmp_path):
    item = replace(item_of(tmp_path / "a", film(numbered(36))), start=0.5, end=0.9)
    (clip,) = clips(item)
    assert numbers(clip.frames) == [15, 17, 19, 21, 23], "the longest bucket that ends before 0.9 s"
    assert clip.start == pytest.approx(0.5)
    assert clip.end == pytest.approx(0.5 + 5 / 15)


def test_a_stride_takes_every_so_many_at_any_rate(tmp_path):
    rules = Rules(**{**RULES.model_dump(), "fps": None, "stride": 3})
    (clip,) = clips(item_of(tmp_path / "a", film(numbered(20), rate=24)), rules)
    assert numbers(clip.frames) == [0, 3, 6, 9, 12]
    assert clip.fps == pytest.approx(8)
    exact = film(numbered(13), rate=24)
    assert numbers(clips(item_of(tmp_path / "b", exact), rules)[0].frames) == [0, 3, 6, 9, 12]


@pytest.mark.parametrize(("count", "length"), [(8, None), (9, 5), (16, 5), (17, 9), (18, 9), (40, 9)])
def test_the_longest_bucket_that_fits(tmp_path, count, length):
    item = item_of(tmp_path / "a", film(numbered(count)))
    if length is None:
        assert refusal(item).reason is Reason.TOO_SHORT
    else:
        assert len(clips(item)[0].frames) == length


@pytest.mark.parametrize("count", [1, 2, 4])
def test_short_videos_are_held_or_looped_if_asked_for(tmp_path, count):
    item = item_of(tmp_path / "a", film(numbered(count), rate=15))
    assert refusal(item).reason is Reason.TOO_SHORT
    held = clips(item, RULES.model_copy(update={"short": "hold"}))[0]
    assert numbers(held.frames) == [min(k, count - 1) for k in range(5)]
    assert "last_frame_held" in held.notes
    looped = clips(item, RULES.model_copy(update={"short": "loop"}))[0]
    assert numbers(looped.frames) == [k % count for k in range(5)]
    assert "looped" in looped.notes


def test_several_clips_follow_each_other(tmp_path):
    found = clips(item_of(tmp_path / "a", film(numbered(38))), RULES.model_copy(update={"clips": 9}))
    assert [numbers(clip.frames) for clip in found] == [list(range(0, 18, 2)), list(range(18, 36, 2))]
    assert [clip.id for clip in found] == ["a#t=0.000,0.600", "a#t=0.600,1.200"]


def test_no_clip_runs_over_a_cut(tmp_path):
    data = film(scene(0, 25) + scene(3, 4) + scene(6, 12))
    found = list(inspect(item_of(tmp_path / "a", data), RULES.model_copy(update={"scenes": 27.0})))
    assert [type(each) for each in found] == [Clip, Refusal, Clip]
    assert found[1].reason is Reason.TOO_SHORT
    assert [found[0].start, found[2].start] == pytest.approx([0, 29 / 30], abs=1e-3)
    assert [len(found[0].frames), len(found[2].frames)] == [9, 5]
    assert len({each.id for each in found}) == 3


def test_slow_videos_repeat_frames_and_it_is_told(tmp_path):
    item = item_of(tmp_path / "a", film(numbered(8), rate=5))
    (clip,) = clips(item)
    assert numbers(clip.frames) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert "frames_repeated" in clip.notes
    assert refusal(item, RULES.model_copy(update={"longest_repeat": 2})).reason is Reason.REPEATED_FRAMES


def test_decoding_stops_with_the_last_frame_taken(tmp_path):
    data = film(numbered(40), "matroska", options={"g": "10"})
    (whole,) = clips(item_of(tmp_path / "a", data))
    (cut,) = clips(item_of(tmp_path / "b", data[: int(len(data) * 0.8)]))
    assert (whole.frames == cut.frames).all()


@pytest.mark.parametrize("where", ["tar", "bytes"])
@pytest.mark.parametrize("data", [film(numbered(12)), png(48, 64)], ids=["video", "image"])
def test_members_and_bytes_are_read_as_files_are(tmp_path, where, data):
    (plain,) = clips(item_of(tmp_path / "a", data))
    (tmp_path / "a.tar").write_bytes(bytes(512) + data + bytes(999))
    media = MemberMedia(tmp_path / "a.tar", 512, len(data), "b", "")
    if where == "bytes":
        media = BytesMedia(data, "b", "")
    (other,) = clips(replace(item_of(tmp_path / "a"), media=media))
    assert (other.frames == plain.frames).all()
    assert other.hash == plain.hash


def test_images_are_cut_to_their_bucket(tmp_path):
    (clip,) = clips(item_of(tmp_path / "a.bin", png(100, 200)))
    assert clip.frames.shape == (1, 48, 64, 3)
    assert (clip.fps, clip.motion, clip.start, clip.source_size) == (None, None, None, (100, 200))
    expected = np.asarray(Image.open(io.BytesIO(png(100, 200))).resize((96, 48), Image.Resampling.LANCZOS))[:, 16:80]
    assert abs(clip.frames[0].astype(int) - expected).mean() < 1
    assert "scaled" in clip.notes
    assert "scaled" not in clips(item_of(tmp_path / "b", png(48, 64)))[0].notes


@pytest.mark.parametrize(("height", "width"), [(63, 47), (49, 65), (719, 1281), (480, 77)])
def test_odd_sizes_keep_their_aspect(tmp_path, height, width):
    """A disc in the middle is as wide as high to within half a pixel, or so as the picture is scaled."""
    rows, columns = np.ogrid[:height, :width]
    disc = (rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2 < (min(height, width) / 4) ** 2
    file = io.BytesIO()
    Image.fromarray(np.repeat(np.where(disc, 0, 255).astype(np.uint8)[..., None], 3, axis=2)).save(file, "PNG")
    rules = RULES.model_copy(update={"upscale": True})
    (clip,) = clips(item_of(tmp_path / "a", file.getvalue()), rules)
    dark = clip.frames[0, :, :, 0] < 128
    assert abs(int(dark.any(axis=0).sum()) - int(dark.any(axis=1).sum())) <= 1 + 0.03 * dark.any(axis=0).sum()


def test_turned_images_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (clip,) = clips(item_of(tmp_path / "a", png(128, 96, exif=exif)))
    assert clip.source_size == (96, 128)
    assert clip.notes[0] == "turned"


def test_animations_are_what_the_rules_declare(tmp_path):
    pictures = [Image.fromarray(frame) for frame in numbered(12)]
    file = io.BytesIO()
    pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], duration=100, lossless=True)
    item = item_of(tmp_path / "a.webp", file.getvalue())
    (first,) = clips(item)
    assert numbers(first.frames) == [0]
    assert "first_of_several" in first.notes
    assert refusal(item, RULES.model_copy(update={"animations": "refuse"})).reason is Reason.ANIMATED
    (video,) = clips(item, RULES.model_copy(update={"animations": "video", "fps": 5.0}))
    assert numbers(video.frames) == [0, 2, 4, 6, 8]


TURNS = {
    "90": ((0, 1, -1, 0), lambda clip: np.rot90(clip, -1, axes=(1, 2))),
    "180": ((-1, 0, 0, -1), lambda clip: clip[:, ::-1, ::-1]),
    "270": ((0, -1, 1, 0), lambda clip: np.rot90(clip, 1, axes=(1, 2))),
    "mirrored": ((-1, 0, 0, 1), lambda clip: clip[:, :, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda clip: clip[:, ::-1]),
    "transposed": ((0, 1, 1, 0), lambda clip: clip.transpose(0, 2, 1, 3)),
    "transversed": ((0, -1, -1, 0), lambda clip: clip[:, ::-1, ::-1].transpose(0, 2, 1, 3)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_turned_videos_are_upright_to_the_pixel(tmp_path, turn):
    matrix, upright = TURNS[turn]
    data = bytearray(film([np.ascontiguousarray(frame) for frame in scene(0, 20)]))
    rules = RULES.model_copy(update={"buckets": buckets_of([(48, 80), (80, 48)], (5,))})
    (flat,) = clips(item_of(tmp_path / "a", bytes(data)), rules)
    a, b, c, d = (65536 * value for value in matrix)
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (turned,) = clips(item_of(tmp_path / "b", bytes(data)), rules)
    assert (turned.frames == upright(flat.frames)).all()
    assert "turned" in turned.notes


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (48, 128)), (Fraction(1, 2), (48, 32))])
def test_clips_have_square_pixels(tmp_path, aspect, size):
    data = film(numbered(20), sample_aspect_ratio=aspect)
    rules = RULES.model_copy(update={"buckets": buckets_of([size], (5,))})
    (clip,) = clips(item_of(tmp_path / "a", data), rules)
    assert clip.source_size == size
    assert "pixels_made_square" in clip.notes


def fates(tmp_path, count):
    """What becomes of mutated videos, by reason; clips are checked to be whole."""
    rng, found = random.Random(1), Counter()
    files = [film(numbered(20, 48, 64), container) for container in ("mp4", "matroska", "webm")]
    for number in range(count):
        for each in inspect(item_of(tmp_path / "a", mutated(files[number % 3], rng)), RULES):
            if isinstance(each, Clip):
                assert each.frames.shape in ((5, 48, 64, 3), (9, 48, 64, 3))
                assert np.isfinite(each.motion)
            found["ok" if isinstance(each, Clip) else each.reason.code] += 1
    return found


def test_mutated_videos_are_whole_clips_or_refused(tmp_path):
    found = fates(tmp_path, 150)
    assert found.total() == 150
    assert found["ok"] > 10
    assert found["damaged"] > 30


@pytest.mark.slow
def test_six_thousand_mutated_videos_are_whole_clips_or_refused(tmp_path):
    assert fates(tmp_path, 6000).total() == 6000


def test_bars_are_cut_off_if_asked_for(tmp_path):
    framed = []
    for picture in scene(0, 20):
        canvas = np.zeros((144, 160, 3), np.uint8)
        canvas[24:120] = np.maximum(picture, 60)
        framed.append(canvas)
    item = item_of(tmp_path / "a", film(framed, options={"crf": "10"}))
    rules = RULES.model_copy(update={"letterbox": "crop"})
    (clip,) = clips(item, rules)
    assert clip.frames.min() > 30
    assert "bars_cut_off" in clip.notes
    assert refusal(item, RULES.model_copy(update={"letterbox": "refuse"})).reason is Reason.LETTERBOX
    assert clips(item)[0].frames[:, 0].max() < 30


def test_motion_and_its_bounds(tmp_path):
    item = item_of(tmp_path / "a", film(scene(0, 20), options={"crf": "8"}))
    (clip,) = clips(item)
    assert clip.motion == pytest.approx(4 * 0.5, rel=0.15), "2 pixels a frame, every other frame, at half the size"
    assert refusal(item, RULES.model_copy(update={"min_motion": 3.0})).reason is Reason.LOW_MOTION
    assert refusal(item, RULES.model_copy(update={"max_motion": 1.0})).reason is Reason.HIGH_MOTION


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"x", Reason.NOT_MEDIA),
        (b"<!DOCTYPE html><html>" + bytes(200), Reason.NOT_MEDIA),
        (b"version https://git-lfs.github.com/spec/v1\n", Reason.NOT_MEDIA),
        (b"ffconcat version 1.0\nfile a.mp4\n", Reason.NOT_MEDIA),
        (b"#EXTM3U\n#EXTINF:1,\na.mp4\n", Reason.NOT_MEDIA),
        (png(48, 64)[:-40], Reason.DAMAGED),
        (film(numbered(20))[:-400], Reason.DAMAGED),
        (png(40, 64), Reason.LOW_RESOLUTION),
        (film(numbered(12, 32, 64)), Reason.LOW_RESOLUTION),
        (film(numbered(3)), Reason.TOO_SHORT),
    ],
)
def test_each_fault_has_its_reason(tmp_path, data, reason):
    item = item_of(tmp_path / "a.mp4", data)
    assert refusal(item).reason is reason
    assert refusal(item).path == str(tmp_path / "a.mp4")


def test_files_that_are_not_there_or_no_files(tmp_path):
    assert refusal(item_of(tmp_path / "nowhere")).reason is Reason.MISSING
    assert refusal(replace(item_of(tmp_path / "a"), media=FileMedia(tmp_path, ""))).reason is Reason.UNREADABLE


def test_rules_are_asked_before_files_are_opened(tmp_path):
    item = item_of(tmp_path / "nowhere")
    scored = RULES.model_copy(update={"scores": (ScoreRange(name="aesthetic", least=5),)})
    assert refusal(item, scored).reason is Reason.NO_SCORE
    assert refusal(replace(item, scores={"aesthetic": 4.0}), scored).reason is Reason.LOW_SCORE
    awaited = scored.model_copy(update={"predicted": ("aesthetic",)})
    assert refusal(item, awaited).reason is Reason.MISSING
    worded = RULES.model_copy(update={"captions": Captions(least_words=3)})
    assert refusal(item, worded).reason is Reason.CAPTION_TOO_SHORT


def test_sources_too_large_or_long_are_refused_by_the_header(tmp_path):
    item = item_of(tmp_path / "a", film(numbered(40)))
    assert refusal(item, RULES.model_copy(update={"max_pixels": 3000})).reason is Reason.TOO_MANY_PIXELS
    assert refusal(item, RULES.model_copy(update={"max_seconds": 1.0})).reason is Reason.TOO_LONG
    assert refusal(item, RULES.model_copy(update={"min_seconds": 2.0})).reason is Reason.TOO_SHORT
    still = item_of(tmp_path / "b", png(48, 64))
    assert refusal(still, RULES.model_copy(update={"max_pixels": 3000})).reason is Reason.TOO_MANY_PIXELS


def test_what_no_bucket_is_for(tmp_path):
    videos = RULES.model_copy(update={"buckets": RULES.buckets[:2]})
    images = RULES.model_copy(update={"buckets": RULES.buckets[2:]})
    assert refusal(item_of(tmp_path / "a", png(48, 64)), videos).reason is Reason.NO_BUCKET
    assert refusal(item_of(tmp_path / "b", film(numbered(12))), images).reason is Reason.NO_BUCKET


def test_every_fault_of_media_is_a_reason():
    assert {fault.name for fault in Fault} <= {reason.name for reason in Reason}


def test_the_papers_recipe_makes_its_clip(tmp_path):
    frames = [np.full((480, 768, 3), 40 + number, np.uint8) for number in range(66)]
    data = film(frames, rate=24, options={"preset": "ultrafast"})
    item = replace(item_of(tmp_path / "a", data), scores={"aesthetic": 5.5})
    (clip,) = clips(item, paper())
    assert clip.frames.shape == (33, 480, 768, 3)
    assert clip.fps == pytest.approx(12)
    assert Fraction(clip.end).limit_denominator(100) == Fraction(65, 24).limit_denominator(100)
