"""What happens to one item, in a worker: captions and scores are looked at, the file is decoded once, clips judged.

Every item ends as clips, as refusals of clips, or as one refusal. Nothing is known here of other items.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from nova.media.faults import Fault, MediaError
from nova.media.files import EMPTY, Section, contents, kind, opened
from nova.preparation.cutting import Cut, Unfit, cuts
from nova.preparation.fates import path_of
from nova.preparation.filters import Verdict, judge_captions, judge_motion, judge_pictures, judge_scores
from nova.preparation.hashing import perceptual_hash
from nova.preparation.items import BytesMedia, Clip, FileMedia, Item, Media, Reason, Refusal
from nova.preparation.motion import grey_size, motion_score
from nova.preparation.rules import Rules
from nova.preparation.vision import cv2

_LINE = 300


def inspect(item: Item, rules: Rules) -> Iterator[Clip | Refusal]:
    """The clips of an item as the rules say, in the order of their times, and refusals with their reasons.

    Clips have the item's id, or where the rules allow several that and `#t=start,end`. Raises only what is a fault
    of the caller, such as packages that are missing.
    """
    captions, verdict = judge_captions(item.captions, rules.captions)
    verdict = verdict or judge_scores(item.scores, rules, rules.predicted)
    if verdict:
        yield _refusal(item, verdict)
        return
    item = replace(item, captions=captions)
    try:
        with _open(item.media) as file:
            for cut in cuts(file, path_of(item), item.start, item.end, rules):
                yield _judged(item, cut, rules)
    except MediaError as error:
        detail = str(error).removeprefix(f"{path_of(item)}: ")
        yield _refusal(item, (Reason[error.fault.name], detail))


def _judged(item: Item, cut: Cut | Unfit, rules: Rules) -> Clip | Refusal:
    several = rules.clips > 1 or rules.scenes is not None
    if several and cut.start is not None and cut.end is not None:
        id = f"{item.id}#t={cut.start:.3f},{cut.end:.3f}"
    else:
        id = item.id
    if isinstance(cut, Unfit):
        return _refusal(item, cut.verdict, id)
    height, width = cut.frames.shape[1:3]
    small = grey_size(height, width, rules.motion.longest)
    full = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in cut.frames]
    greys = (
        [cv2.resize(grey, small[::-1], interpolation=cv2.INTER_AREA) for grey in full] if small[0] < height else full
    )
    if verdict := judge_pictures(greys, rules):
        return _refusal(item, verdict, id)
    motion = motion_score(greys, rules.motion, height / small[0]) if len(greys) > 1 else None
    if motion is not None and (verdict := judge_motion(motion, rules)):
        return _refusal(item, verdict, id)
    return Clip(
        id=id,
        item=item,
        frames=cut.frames,
        fps=cut.fps,
        motion=motion,
        start=cut.start,
        end=cut.end,
        source_size=cut.source_size,
        hash=perceptual_hash(greys),
        scores=item.scores,
        notes=cut.notes,
    )


@contextmanager
def _open(media: Media) -> Iterator[BinaryIO]:
    """The bytes of `media` as a file, wherever they are. Raises MediaError for what is no media or empty."""
    if isinstance(media, BytesMedia):
        yield _recognised(io.BytesIO(media.data), media.name)
    elif isinstance(media, FileMedia):
        with opened(media.path) as file:
            yield _recognised(file, str(media.path))
    else:
        name = f"{media.archive}/{media.name}"
        with opened(media.archive) as archive:
            yield _recognised(io.BufferedReader(Section(archive, media.offset, media.size)), name)


def _recognised(file: BinaryIO, name: str) -> BinaryIO:
    if kind(file) is not None:
        return file
    found = contents(file)
    fault = Fault.EMPTY_FILE if found == EMPTY else Fault.NOT_MEDIA
    raise MediaError(f"{name}: is neither an image nor a video; found {found}", fault)


def _refusal(item: Item, verdict: Verdict, id: str | None = None) -> Refusal:
    reason, detail = verdict
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in detail)
    return Refusal(id or item.id, path_of(item), reason, printable[:_LINE])
