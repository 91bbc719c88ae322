"""The motion score of a clip: how many pixels things move from one frame to the next, on average.

By default as the NOVA paper's authors compute it: corners are found in each frame and followed into the next with
sparse Lucas-Kanade; the score is the mean distance over all points and pairs of frames. Dense flow weighs all of the
picture alike, and so scores small things that move lower. Frames are compared as grey copies, and distances given in
pixels of the clip.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from nova.errors import UsageError
from nova.preparation.rules import Motion
from nova.preparation.vision import cv2

Grey = UInt8[np.ndarray, "h w"]

# The authors' constants (OpenCV's names).
_CORNERS: dict[str, Any] = {"maxCorners": 100, "qualityLevel": 0.1, "minDistance": 7, "blockSize": 7}
_FOLLOWING: dict[str, Any] = {"winSize": (15, 15), "maxLevel": 2}
_FARNEBACK: dict[str, Any] = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def motion_score(greys: Sequence[Grey], motion: Motion, scale: float = 1.0) -> float:
    """Mean distance in pixels a frame, times `scale`: pixels of the clip to one of `greys`.

    0.0 where nothing can be followed, as in a flat picture. Raises UsageError for fewer than two frames.
    """
    if len(greys) < 2:
        raise UsageError(f"motion: found {len(greys)} frames, expected two or more")
    if motion.method == "lucas-kanade":
        distances = [_followed(one, other) for one, other in itertools.pairwise(greys)]
        count = sum(len(each) for each in distances)
        return float(sum(each.sum(dtype=np.float64) for each in distances) / count) * scale if count else 0.0
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST) if motion.method == "dis" else None
    lengths = []
    for one, other in itertools.pairwise(greys):
        start = np.zeros((*one.shape, 2), np.float32)
        field = flow.calc(one, other, start) if flow else cv2.calcOpticalFlowFarneback(one, other, start, **_FARNEBACK)
        lengths.append(float(np.linalg.norm(field, axis=2).mean(dtype=np.float64)))
    return float(np.mean(lengths)) * scale


def grey_size(height: int, width: int, longest: int | None) -> tuple[int, int]:
    """Height and width of the grey copies of frames, at most `longest` on the longer side."""
    factor = 1.0 if longest is None else min(1.0, longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def definition(motion: Motion) -> str:
    """What exactly the score is, for the header of shards."""
    copies = "frames of the clip" if motion.longest is None else f"grey copies of at most {motion.longest} pixels"
    if motion.method == "lucas-kanade":
        how = (
            f"sparse Lucas-Kanade, OpenCV {cv2.__version__}: goodFeaturesToTrack({_CORNERS}), "
            f"calcOpticalFlowPyrLK({_FOLLOWING}), mean over points and pairs of frames"
        )
    elif motion.method == "farneback":
        how = f"dense Farneback, OpenCV {cv2.__version__}: {_FARNEBACK}, mean over pixels and pairs of frames"
    else:
        how = f"dense DIS, OpenCV {cv2.__version__}: preset fast, mean over pixels and pairs of frames"
    return f"{how}; on {copies}, in pixels of the clip a frame"


def _followed(one: Grey, other: Grey) -> Float[np.ndarray, " points"]:
    """How far each corner of `one` that is found again in `other` has moved."""
    corners = cv2.goodFeaturesToTrack(one, **_CORNERS)
    if corners is None or not len(corners):
        return np.zeros(0, np.float32)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(one, other, corners, corners.copy(), **_FOLLOWING)
    ways = (moved - corners).reshape(-1, 2)[found.reshape(-1) == 1]
    distances = np.hypot(ways[:, 0], ways[:, 1])
    return distances[distances < math.hypot(*one.shape)]  # a point that left the picture was not followed
