"""Scenes: cuts are found at their very frames, no clip runs over one, and frames pass through only once."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest

from nova.media.raster import Rasteriser
from nova.media.stream import open_video
from nova.preparation.scenes import scenes
from tests.preparation.films import film


def scene(seed: int, count: int) -> list[np.ndarray]:
    """A coloured picture over which the camera pans."""
    rng = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(rng.normal(size=(96, 160 + 2 * count, 3)).astype(np.float32), (0, 0), 10)
    whole = cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX) * 0.5 + rng.integers(0, 127, 3)
    return [np.ascontiguousarray(whole[:, 2 * k : 2 * k + 160].astype(np.uint8)) for k in range(count)]


def lengths(frames: list[np.ndarray], threshold: float = 27.0) -> list[int]:
    with open_video(io.BytesIO(film(frames, "mp4")), "film") as video:
        return [sum(1 for _ in each) for each in scenes(video.frames(), threshold, Rasteriser())]


@pytest.mark.parametrize("parts", [(12,), (10, 20), (7, 1, 9), (5, 30, 8, 12)])
def test_cuts_are_found_at_their_frames(parts):
    assert lengths([frame for seed, count in enumerate(parts) for frame in scene(3 * seed, count)]) == list(parts)


def test_slow_fades_are_no_cuts():
    one, other = scene(0, 1)[0].astype(float), scene(3, 1)[0].astype(float)
    fade = [(one + (other - one) * k / 40).astype(np.uint8) for k in range(41)]
    assert lengths(fade) == [41]


def test_the_threshold_counts():
    frames = scene(0, 6) + scene(3, 6)
    assert lengths(frames, threshold=200.0) == [12]


def test_a_scene_is_read_as_it_is_asked_for():
    taken = []

    def watched(frames):
        for frame in frames:
            taken.append(frame.time)
            yield frame

    with open_video(io.BytesIO(film(scene(0, 10) + scene(3, 10), "mp4")), "film") as video:
        each = scenes(watched(video.frames()), 27.0, Rasteriser())
        first = next(each)
        next(first)
        assert len(taken) == 1
        next(each)
        assert len(taken) == 11
