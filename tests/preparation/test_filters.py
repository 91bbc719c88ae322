"""Filters: on 200 made-up clips each finds what it is for, and nothing else."""

import cv2
import numpy as np
import pytest

from nova.preparation.filters import (
    black_share,
    inside,
    judge_captions,
    judge_duration,
    judge_motion,
    judge_pictures,
    judge_scores,
    judge_size,
    largest_change,
    letterbox,
)
from nova.preparation.items import Reason
from nova.preparation.rules import Captions, Rules, ScoreRange

JUDGES = Rules(static=2.0, black=0.3, letterbox="refuse")
KINDS = (None, Reason.STATIC, Reason.BLACK, Reason.LETTERBOX)


def clip(kind, rng, count=9, height=120, width=200):
    """Noisy grey frames in which a small thing moves (0.5 % of the picture or more), or one of the faults."""
    soft = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), 12)
    ground = cv2.normalize(soft, None, 30, 220, cv2.NORM_MINMAX)
    side, step = int(rng.integers(11, 30)), int(rng.integers(2, 6))
    top, left, level = int(rng.integers(0, height - 31)), int(rng.integers(0, 100)), int(rng.choice((10, 250)))
    bars = int(rng.integers(4, 30)), bool(rng.integers(2))
    black = int(rng.integers(4, count + 1)), int(rng.integers(0, 16))
    frames = []
    for number in range(count):
        frame = ground.copy()
        if kind is not Reason.STATIC:
            frame[top : top + side, left + step * number : left + step * number + side] = level
        frame += rng.normal(0, 2, frame.shape)
        if kind is Reason.LETTERBOX:
            thick, across = bars
            lines = frame if across else frame.T
            lines[:thick] = lines[-thick:] = rng.normal(4, 1, lines[:thick].shape)
        if kind is Reason.BLACK and number < black[0]:
            frame[:] = rng.normal(black[1], 2, frame.shape)
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames


def test_precision_and_recall_on_200_clips():
    rng = np.random.default_rng(0)
    found = {(kind, verdict): 0 for kind in KINDS for verdict in KINDS}
    for number in range(200):
        kind = KINDS[number % 4]
        verdict = judge_pictures(clip(kind, rng), JUDGES)
        found[kind, verdict[0] if verdict else None] += 1
    right = {kind: found[kind, kind] for kind in KINDS}
    assert right == dict.fromkeys(KINDS, 50), found


def test_filters_are_off_unless_asked_for():
    rng = np.random.default_rng(1)
    assert [judge_pictures(clip(kind, rng), Rules()) for kind in KINDS] == [None] * 4


def test_bars_are_measured_and_cut_off():
    frame = np.full((100, 160), 120, np.uint8)
    frame[:12] = frame[-12:] = 3
    bars = letterbox([frame])
    assert (bars.top, bars.bottom, bars.left, bars.right) == (12, 12, 0, 0)
    box = inside(bars, frame.shape)
    assert (box.top, box.left, box.height, box.width) == (12, 0, 76, 160)
    sky = np.full((100, 160), 120, np.uint8)
    sky[:40] = 3
    assert letterbox([sky]) is None, "dark on one side only"
    assert letterbox([np.zeros((100, 160), np.uint8)]) is None, "all black"
    assert letterbox([frame, np.full_like(frame, 120)]) is None, "not in all frames"


def test_measures():
    grey = np.full((64, 64), 100, np.uint8)
    brighter = grey.copy()
    brighter[:4, :4] += 10
    assert largest_change([grey, grey, brighter]) == pytest.approx(10)
    assert black_share([grey, np.zeros_like(grey), np.zeros_like(grey), grey]) == 0.5


@pytest.mark.parametrize(
    ("source", "rules", "reason"),
    [
        ((480, 768), {}, None),
        ((479, 768), {}, Reason.LOW_RESOLUTION),
        ((479, 768), {"upscale": True}, None),
        ((720, 1280), {"min_side": 1080}, Reason.LOW_RESOLUTION),
        ((1280, 720), {"min_aspect": 1.0, "upscale": True}, Reason.ASPECT),
        ((600, 2400), {"max_aspect": 3.0}, Reason.ASPECT),
        ((1920, 1080), {"least_kept": 0.5}, Reason.ASPECT),
        ((1080, 1920), {"least_kept": 0.5}, None),
    ],
)
def test_sizes(source, rules, reason):
    verdict = judge_size(source, [(480, 768)], Rules(**rules))
    assert (verdict[0] if verdict else None) is reason


def test_sizes_without_a_bucket():
    assert judge_size((999, 999), [], Rules())[0] is Reason.NO_BUCKET


def test_ends_of_ranges_are_allowed():
    rules = Rules(min_seconds=2, max_seconds=5, min_motion=1, max_motion=9)
    assert [judge_duration(seconds, rules) for seconds in (2, 5)] == [None, None]
    assert [judge_duration(seconds, rules)[0] for seconds in (1.9, 5.1)] == [Reason.TOO_SHORT, Reason.TOO_LONG]
    assert [judge_motion(score, rules) for score in (1, 9)] == [None, None]
    assert [judge_motion(score, rules)[0] for score in (0.9, 9.1)] == [Reason.LOW_MOTION, Reason.HIGH_MOTION]


def test_scores():
    rules = Rules(scores=(ScoreRange(name="aesthetic", least=5), ScoreRange(name="nsfw", most=0.1, required=False)))
    assert judge_scores({"aesthetic": 5.0}, rules) is None
    assert judge_scores({"aesthetic": 4.9}, rules)[0] is Reason.LOW_SCORE
    assert judge_scores({"aesthetic": 6, "nsfw": 0.2}, rules)[0] is Reason.HIGH_SCORE
    assert judge_scores({}, rules)[0] is Reason.NO_SCORE
    assert judge_scores({"aesthetic": float("nan")}, rules)[0] is Reason.NO_SCORE
    assert judge_scores({}, rules, awaited=("aesthetic",)) is None


def test_captions():
    rules = Captions(least_characters=3, most_characters=20, least_words=2, most_words=4)
    kept, verdict = judge_captions(["a fine day", "no", "word", "one two three four five", "a b " * 9], rules)
    assert kept == ("a fine day",)
    assert verdict is None
    assert judge_captions(["word"], rules)[1][0] is Reason.CAPTION_TOO_SHORT
    assert judge_captions(["one two three four five"], rules)[1][0] is Reason.CAPTION_TOO_LONG
    assert judge_captions([], rules) == ((), None), "an item with a label needs no caption"
