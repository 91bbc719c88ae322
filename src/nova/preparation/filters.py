"""Judgements: what rules say about sources, clips, scores and captions. Each gives a refusal's reason, or None.

They are asked in the order of their cost: captions and scores before a file is opened, sizes before a frame is
decoded, pictures last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from nova.preparation.buckets import Box, best_size, kept
from nova.preparation.items import Reason
from nova.preparation.rules import Captions, Rules
from nova.preparation.vision import cv2

Greys = Sequence[UInt8[np.ndarray, "h w"]]
Verdict = tuple[Reason, str]
"""Why something is left out, and what was found."""

_CELLS = 16
_BLACK = 24  # levels of 255 below which a picture or a bar is black: of film and video, with their noise
_LEAST_BAR = 0.02


@dataclass(frozen=True)
class Bars:
    """Rows and columns of black at the edges of a picture."""

    top: int
    bottom: int
    left: int
    right: int


def judge_captions(captions: Sequence[str], rules: Captions) -> tuple[tuple[str, ...], Verdict | None]:
    """The captions within the bounds, and what was wrong if there were some and none is left."""
    verdicts = [_caption_fault(caption, rules) for caption in captions]
    left = tuple(caption for caption, verdict in zip(captions, verdicts, strict=True) if verdict is None)
    return left, next(filter(None, verdicts), None) if captions and not left else None


def _caption_fault(caption: str, rules: Captions) -> Verdict | None:
    characters, words = len(caption), len(caption.split())
    if characters < rules.least_characters:
        return Reason.CAPTION_TOO_SHORT, f"found {characters} characters, expected {rules.least_characters} or more"
    if words < rules.least_words:
        return Reason.CAPTION_TOO_SHORT, f"found {words} words, expected {rules.least_words} or more"
    if rules.most_characters is not None and characters > rules.most_characters:
        return Reason.CAPTION_TOO_LONG, f"found {characters} characters, expected {rules.most_characters} or fewer"
    if rules.most_words is not None and words > rules.most_words:
        return Reason.CAPTION_TOO_LONG, f"found {words} words, expected {rules.most_words} or fewer"
    return None


def judge_scores(scores: Mapping[str, float], rules: Rules, awaited: Sequence[str] = ()) -> Verdict | None:
    """What the bounds say about the scores that are known. A missing one is no fault while it is `awaited`."""
    for bound in rules.scores:
        score = scores.get(bound.name)
        if score is None or score != score:
            if bound.required and bound.name not in awaited:
                return Reason.NO_SCORE, f"found no score {bound.name!r}"
        elif bound.least is not None and score < bound.least:
            return Reason.LOW_SCORE, f"{bound.name}: found {score:g}, expected {bound.least:g} or more"
        elif bound.most is not None and score > bound.most:
            return Reason.HIGH_SCORE, f"{bound.name}: found {score:g}, expected {bound.most:g} or less"
    return None


def judge_size(source: tuple[int, int], sizes: Sequence[tuple[int, int]], rules: Rules) -> Verdict | None:
    """What the rules say about a picture of height and width `source` that is to become one of `sizes`."""
    height, width = source
    found = f"found {width}x{height} pixels"
    if rules.min_side is not None and min(source) < rules.min_side:
        return Reason.LOW_RESOLUTION, f"{found}, expected {rules.min_side} or more on the shorter side"
    aspect = width / height
    if rules.min_aspect is not None and aspect < rules.min_aspect:
        return Reason.ASPECT, f"{found}, {aspect:.3f} as wide as high; expected {rules.min_aspect:g} or more"
    if rules.max_aspect is not None and aspect > rules.max_aspect:
        return Reason.ASPECT, f"{found}, {aspect:.3f} as wide as high; expected {rules.max_aspect:g} or less"
    if not sizes:
        return Reason.NO_BUCKET, f"{found}; no bucket has this many frames"
    size = best_size(source, sizes, rules.upscale)
    if size is None:
        smallest = min(sizes, key=lambda each: each[0] * each[1])
        return Reason.LOW_RESOLUTION, f"{found}, the smallest bucket has {smallest[1]}x{smallest[0]}"
    if (share := kept(source, size)) < rules.least_kept:
        return Reason.ASPECT, f"{found}; the crop to {size[1]}x{size[0]} would leave {share:.2f} of them"
    return None


def judge_duration(seconds: float, rules: Rules) -> Verdict | None:
    """What the rules say about a source of so many seconds."""
    if rules.min_seconds is not None and seconds < rules.min_seconds:
        return Reason.TOO_SHORT, f"found {seconds:.2f} s, expected {rules.min_seconds:g} or more"
    if rules.max_seconds is not None and seconds > rules.max_seconds:
        return Reason.TOO_LONG, f"found {seconds:.2f} s, expected {rules.max_seconds:g} or less"
    return None


def judge_pictures(greys: Greys, rules: Rules) -> Verdict | None:
    """What the rules say about the frames of a clip, given as grey copies in its size or smaller."""
    if rules.black is not None and (share := black_share(greys)) > rules.black:
        return Reason.BLACK, f"found {share:.2f} of the frames black, expected {rules.black:g} or less"
    if rules.static is not None and len(greys) > 1 and (change := largest_change(greys)) <= rules.static:
        return Reason.STATIC, f"found changes of {change:.1f} levels, expected more than {rules.static:g}"
    if rules.letterbox != "keep" and (bars := letterbox(greys)):
        height, width = greys[0].shape
        rows, columns = (bars.top + bars.bottom) / height, (bars.left + bars.right) / width
        return Reason.LETTERBOX, f"found bars over {rows:.2f} of the height and {columns:.2f} of the width"
    return None


def judge_motion(score: float, rules: Rules) -> Verdict | None:
    """What the rules say about a motion score."""
    if rules.min_motion is not None and score < rules.min_motion:
        return Reason.LOW_MOTION, f"found {score:.2f} pixels a frame, expected {rules.min_motion:g} or more"
    if rules.max_motion is not None and score > rules.max_motion:
        return Reason.HIGH_MOTION, f"found {score:.2f} pixels a frame, expected {rules.max_motion:g} or less"
    return None


def black_share(greys: Greys) -> float:
    """The share of frames of which no 16th of the height by 16th of the width is brighter than black."""
    return float(np.mean([_cells(grey).max() <= _BLACK for grey in greys]))


def largest_change(greys: Greys) -> float:
    """The most levels by which a 16th of the height by 16th of the width differs from the first frame's."""
    cells = [_cells(grey) for grey in greys]
    return max(float(np.abs(each - cells[0]).max()) for each in cells)


def letterbox(greys: Greys) -> Bars | None:
    """Black bars that all frames have on opposite edges, about as wide on both; None where there are none."""
    brightest = np.max(np.stack(greys), axis=0)
    if brightest.max() <= _BLACK:
        return None  # all is black, not only its edges
    top, bottom = _pair(brightest.max(axis=1))
    left, right = _pair(brightest.max(axis=0))
    return Bars(top, bottom, left, right) if top or left else None


def inside(bars: Bars, size: tuple[int, int]) -> Box:
    """What is left of a picture of height and width `size` without its bars."""
    height, width = size
    return Box(bars.top, bars.left, height - bars.top - bars.bottom, width - bars.left - bars.right)


def _pair(brightest: UInt8[np.ndarray, " lines"]) -> tuple[int, int]:
    """How many lines are black at the start and at the end, or (0, 0) if that does not look like a letterbox."""
    bright = np.flatnonzero(brightest > _BLACK)
    first, last = int(bright[0]), int(len(brightest) - 1 - bright[-1])
    least = max(1, round(_LEAST_BAR * len(brightest)))
    alike = abs(first - last) <= max(2, 0.25 * max(first, last))
    return (first, last) if min(first, last) >= least and alike else (0, 0)


def _cells(grey: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "16 16"]:
    return cv2.resize(grey.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
