"""What passes through a preparation: items that a source lists, clips cut from them, and refusals with their reasons.

Everything that is listed ends as clips or as a refusal; nothing is dropped in silence.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

Status = Literal["skipped", "failed"]


@dataclass(frozen=True)
class FileMedia:
    """A file of its own. `stamp` names its content as cheaply as the file system can: size and time of change."""

    path: Path
    stamp: str


@dataclass(frozen=True)
class MemberMedia:
    """`size` bytes at `offset` of an uncompressed tar `archive`, called `name` there; `stamp` is the archive's."""

    archive: Path
    offset: int
    size: int
    name: str
    stamp: str


Media = FileMedia | MemberMedia


@dataclass(frozen=True)
class Item:
    """An image or a video, or a stretch of one, as a source lists it.

    id: unique in the source.  captions: one or more, none only beside a label.  start, end: seconds, None for all of
    it.  scores: numbers that the source knows already, by name.
    """

    id: str
    media: Media
    captions: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    label: int | None = None


class Reason(enum.Enum):
    """Why something is not trained on: a code, whether a rule says so or the data is bad, and words."""

    EMPTY_FILE = "empty_file", "failed", "the file holds no bytes"
    UNREADABLE = "unreadable", "failed", "the system cannot read it"
    MISSING = "missing", "failed", "the file is not there"
    NOT_MEDIA = "not_media", "failed", "no image or video of a known format"
    DAMAGED = "damaged", "failed", "truncated or damaged"
    TIMEOUT = "timeout", "failed", "took longer than allowed"
    WORKER_DIED = "worker_died", "failed", "crashed its worker process or took more memory than allowed"
    NOT_FINITE = "not_finite", "failed", "its latents are not finite numbers"
    OUTSIDE_ROOT = "outside_root", "failed", "its path leads out of the source"
    NO_CAPTION = "no_caption", "skipped", "no caption, or an empty one"
    CAPTION_ENCODING = "caption_encoding", "failed", "its caption is not UTF-8 text"
    DUPLICATE_ID = "duplicate_id", "failed", "another item has this id"
    IGNORED_FILE = "ignored_file", "skipped", "no media: a file of the system or of an unfinished copy"

    def __init__(self, code: str, status: Status, words: str) -> None:
        self.code = code
        self.status = status
        self.words = words


@dataclass(frozen=True)
class Refusal:
    """An item or clip that is left out. `detail` says what was found, in one printable line."""

    id: str
    path: str
    reason: Reason
    detail: str


@dataclass(frozen=True, eq=False)
class Clip:
    """A stretch of an item, of one scene, already in the size and length of its bucket.

    fps: of `frames`; None for an image.  motion: mean pixels a frame, None for an image.  start, end: seconds in the
    item's file.  source_size: height and width before.  hash: perceptual, for near-duplicates.  notes: what was done
    that is worth counting, such as `rotated` or `alpha_on_white`.
    """

    id: str
    item: Item
    frames: UInt8[np.ndarray, "f H W 3"]
    fps: float | None
    motion: float | None
    start: float | None
    end: float | None
    source_size: tuple[int, int]
    hash: int
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
