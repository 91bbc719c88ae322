"""The measure knows what the world drew, finds nothing in other clips, and sees each thing that is changed."""

import numpy as np
import pytest

from nova.data.digit_attributes import Attributes
from nova.data.moving_digits import World, scene
from nova.errors import UsageError
from nova.evaluation.digits import DigitScore, Figures, score_clip

RED_THREE = Attributes(3, "red", "normal", "left", "right", "normal")
PARTS = ("value", "colour", "direction", "speed")


@pytest.fixture(scope="module")
def clips():
    """Clips in unseen handwriting, half with two digits, and what was asked for."""
    found = [World(split="test").sample(index) for index in range(40)]
    return [(clip.frames, [digit.attributes for digit in clip.digits]) for clip in found]


@pytest.fixture(scope="module")
def three():
    return scene([RED_THREE], seed=1).frames


def wrong(frames, *asked):
    """What is not right, for one digit."""
    (score,) = score_clip(frames, asked or [RED_THREE])
    return {part for part in PARTS if getattr(score, part) != 1}


def test_what_the_world_drew_is_right(clips):
    figures = Figures.of(score for frames, asked in clips for score in score_clip(frames, asked))
    assert figures.score > 0.97
    assert min(getattr(figures, part) for part in (*PARTS, "legible")) > 0.96
    assert figures.error < 0.02


def test_captions_of_other_clips_are_right_as_often_as_they_agree(clips):
    single = [(frames, asked[0]) for frames, asked in clips if len(asked) == 1]
    scores, agreements = [], []
    for shift in range(1, 4):
        for (frames, own), (_, other) in zip(single, np.roll(np.array(single, object), shift, axis=0), strict=True):
            scores += score_clip(frames, [other])
            still = {own.direction, other.direction} == {"still"}
            same_way = own.direction == other.direction
            same = [own.value == other.value, own.colour == other.colour, same_way]
            agreements.append(np.mean([*same, same_way and (still or own.speed == other.speed)]))
    figures = Figures.of(scores)
    assert figures.score == pytest.approx(np.mean(agreements), abs=0.04)
    assert figures.score < 0.25


def test_one_digit_as_asked(three):
    assert wrong(three) == set()


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda frames: frames[..., [2, 1, 0]], {"colour"}),
        (lambda frames: frames[::-1], {"direction", "speed"}),
        (lambda frames: np.repeat(frames[:1], 17, axis=0), {"direction", "speed"}),
        (lambda frames: frames[np.arange(17) // 2], {"speed"}),
        (lambda frames: frames.transpose(0, 2, 1, 3)[:, ::-1], {"value", "direction", "speed"}),
        (lambda frames: np.zeros_like(frames), set(PARTS)),
        (lambda frames: np.where(np.arange(17)[:, None, None, None] < 7, frames, 0), set(PARTS)),
    ],
    ids=["blue", "backwards", "still", "half as fast", "turned", "black", "gone after seven frames"],
)
def test_each_change_is_seen_where_it_is(three, change, seen):
    assert wrong(change(three)) == seen


def test_other_values_are_read(three):
    for value in (1, 5, 8):
        assert wrong(three, Attributes(value, "red", "normal", "left", "right", "normal")) == {"value"}


def test_what_cannot_be_read_is_worth_nothing(three):
    blot = np.zeros_like(three)
    for index in range(17):
        blot[index, 24:40, 8 + index : 24 + index] = (255, 40, 40)
    (score,) = score_clip(blot, [RED_THREE])
    assert (score.colour, score.direction, score.speed) == (1, 1, 1)
    assert score.legible == 0 == score.score


def test_two_digits_are_told_apart():
    left = Attributes(4, "red", "normal", "left", "up", "slow")
    right = Attributes(9, "blue", "normal", "right", "down", "slow")
    frames = scene([left, right], seed=2).frames
    assert [score.score for score in score_clip(frames, [left, right])] == [1, 1]
    assert [score.score for score in score_clip(frames, [right, left])] == [1, 1]
    lonely = score_clip(scene([left], seed=2).frames, [left, right])
    assert [score.score for score in lonely] == [1, 0]


def test_the_same_clip_has_the_same_score(three):
    assert score_clip(three, [RED_THREE]) == score_clip(three.copy(), [RED_THREE])


def test_a_score_is_legible_times_the_mean_of_the_rest():
    assert DigitScore(1, 1, 0, 0, 0.5).score == 0.25
    figures = Figures.of([DigitScore(1, 1, 1, 1, 1), DigitScore()])
    assert (figures.score, figures.legible, figures.digits) == (0.5, 0.5, 2)
    assert figures.error == pytest.approx(0.5 / 2**0.5)


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 64, 64, 3), (5, 64, 64)])
def test_what_is_no_clip_is_refused(shape):
    with pytest.raises(UsageError, match="give a clip"):
        score_clip(np.zeros(shape, np.uint8), [RED_THREE])
