"""Motion: what moves by so many pixels a frame scores so many, whatever the method, the contrast or the copies."""

import cv2
import numpy as np
import pytest

from nova.errors import UsageError
from nova.preparation.motion import definition, grey_size, motion_score
from nova.preparation.rules import Motion

METHODS = ["lucas-kanade", "farneback", "dis"]


def pattern(height=200, width=300, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def moving(down, across, count=4):
    """Windows of one picture, each so many pixels further."""
    whole = pattern()
    return [whole[20 + k * down : 148 + k * down, 20 + k * across : 212 + k * across].copy() for k in range(count)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("down", "across"), [(0, 1), (3, 0), (3, 4)])
def test_a_shift_scores_its_length(method, down, across):
    score = motion_score(moving(down, across), Motion(method=method))
    assert score == pytest.approx(np.hypot(down, across), rel=0.05 if method == "lucas-kanade" else 0.15)


@pytest.mark.parametrize("method", METHODS)
def test_what_stands_still_scores_nothing(method):
    assert motion_score([pattern()] * 3, Motion(method=method)) < 0.02
    assert motion_score([np.full((64, 64), 90, np.uint8)] * 3, Motion(method=method)) < 0.02


def test_small_copies_score_in_pixels_of_the_clip():
    large = [cv2.resize(grey, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC) for grey in moving(2, 2)]
    full = motion_score(large, Motion(longest=None))
    assert full == pytest.approx(3 * np.hypot(2, 2), rel=0.05)
    height, width = grey_size(*large[0].shape, 192)
    assert max(height, width) == 192
    copies = [cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA) for grey in large]
    assert motion_score(copies, Motion(), large[0].shape[0] / height) == pytest.approx(full, rel=0.05)


def test_the_score_is_the_mean_over_points_and_pairs():
    """One still pair and one that moves, with as many points each: half the distance."""
    one, two = moving(0, 4, 2)
    assert motion_score([one, one, two], Motion()) == pytest.approx(2, rel=0.05)


def test_points_in_the_authors_constants():
    one, two = moving(1, 2, 2)
    corners = cv2.goodFeaturesToTrack(one, 100, 0.1, 7, blockSize=7)
    after, found, _ = cv2.calcOpticalFlowPyrLK(one, two, corners, None, winSize=(15, 15), maxLevel=2)
    expected = np.linalg.norm((after - corners)[found == 1], axis=-1).mean()
    assert motion_score([one, two], Motion()) == pytest.approx(float(expected), rel=1e-5)


def test_the_definition_names_what_the_score_depends_on():
    texts = {definition(Motion(method=method, longest=longest)) for method in METHODS for longest in (None, 256, 384)}
    assert len(texts) == 9
    assert "100" in definition(Motion())
    assert "(15, 15)" in definition(Motion())


def test_one_frame_has_no_motion():
    with pytest.raises(UsageError, match="two or more"):
        motion_score([pattern()], Motion())
