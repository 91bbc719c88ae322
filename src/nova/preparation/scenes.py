"""Cuts: where a video's picture changes at once. PySceneDetect's content detector, fed with the frames we decode.

Its score is the mean change of hue, saturation and brightness between neighbouring frames, of 255. Every frame above
the threshold begins a scene: what flashes is cut as well, and the pieces are left out for being short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from nova.errors import UsageError
from nova.media.raster import Rasteriser
from nova.media.stream import Frame

if TYPE_CHECKING:
    from scenedetect.detectors import ContentDetector


def scenes(frames: Iterable[Frame], threshold: float, raster: Rasteriser) -> Iterator[Iterator[Frame]]:
    """The frames of each scene in turn, lazily: a scene's frames are gone once the next scene is asked for."""
    for _, scene in groupby(_numbered(frames, threshold, raster), key=itemgetter(0)):
        yield map(itemgetter(1), scene)


def _numbered(frames: Iterable[Frame], threshold: float, raster: Rasteriser) -> Iterator[tuple[int, Frame]]:
    from scenedetect import FrameTimecode

    detector, number = _detector(threshold), 0
    for index, frame in enumerate(frames):
        # The detector counts frames; what a timecode's rate is does not matter to it.
        cuts = detector.process_frame(FrameTimecode(index, fps=1.0), raster.thumbnail(frame.picture))
        number += bool(cuts) and index > 0
        yield number, frame


def _detector(threshold: float) -> ContentDetector:
    try:
        from scenedetect.detectors import ContentDetector
    except ImportError as missing:
        message = "scenes: need PySceneDetect; install it with: pip install 'nova-video[data]'"
        raise UsageError(message) from missing
    return ContentDetector(threshold=threshold, min_scene_len=1)
