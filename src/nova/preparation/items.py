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


@dataclass(frozen=True)
class BytesMedia:
    """`data` that a table holds itself, called `name` there (ends in a suffix if that is known); `stamp` is a hash."""

    data: bytes = field(repr=False)
    name: str
    stamp: str


Media = FileMedia | MemberMedia | BytesMedia


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
    URL = "url", "failed", "a URL; nothing is downloaded"
    BAD_PATH = "bad_path", "failed", "its path cannot be the path of a file"
    OTHER_SPELLING = "other_spelling", "failed", "the file is spelt otherwise: in case or Unicode form"
    BAD_TABLE = "bad_table", "failed", "the table is damaged or not what it seems"
    BAD_ROW = "bad_row", "failed", "its row in the table is malformed"
    BAD_VALUE = "bad_value", "failed", "a value is not what its column should hold"
    BAD_ARCHIVE = "bad_archive", "failed", "the archive is damaged or no uncompressed tar"
    SPECIAL_MEMBER = "special_member", "failed", "a link, device or other special member of an archive"
    NO_CAPTION = "no_caption", "skipped", "no caption, or an empty one"
    CAPTION_ENCODING = "caption_encoding", "failed", "its caption is not UTF-8 text"
    CAPTION_NOT_TEXT = "caption_not_text", "failed", "its caption is a number or nested, not text"
    CAPTION_TOO_LONG = "caption_too_long", "skipped", "its caption is longer than allowed"
    CAPTION_TOO_SHORT = "caption_too_short", "skipped", "its caption is shorter than asked for"
    AMBIGUOUS_CAPTION = "ambiguous_caption", "failed", "its caption could belong to several files"
    NO_VIDEO = "no_video", "failed", "a file without pictures, such as sound alone"
    CODEC = "codec", "failed", "its codec is not in the decoder that is installed"
    TIMESTAMPS = "timestamps", "failed", "the times of its frames are missing or go back"
    VALUE_RANGE = "value_range", "failed", "its values have no known range"
    COLOUR = "colour", "failed", "its colour matrix is not read"
    HDR = "hdr", "skipped", "in high dynamic range"
    TOO_MANY_PIXELS = "too_many_pixels", "skipped", "more pixels than allowed"
    ANIMATED = "animated", "skipped", "several pictures, where one was expected"
    NO_BUCKET = "no_bucket", "skipped", "an image where only videos are asked for, or a video where only images are"
    LOW_RESOLUTION = "low_resolution", "skipped", "smaller than asked for"
    ASPECT = "aspect", "skipped", "too wide or too high, or the crop would leave too little"
    TOO_SHORT = "too_short", "skipped", "fewer frames or seconds than asked for"
    TOO_LONG = "too_long", "skipped", "longer than allowed"
    REPEATED_FRAMES = "repeated_frames", "skipped", "one frame stands for longer than allowed"
    STATIC = "static", "skipped", "nothing moves"
    BLACK = "black", "skipped", "too many black frames"
    LETTERBOX = "letterbox", "skipped", "black bars on opposite edges"
    LOW_MOTION = "low_motion", "skipped", "its motion score is below the bound"
    HIGH_MOTION = "high_motion", "skipped", "its motion score is above the bound"
    NO_SCORE = "no_score", "skipped", "it has no score of a name that is asked for"
    LOW_SCORE = "low_score", "skipped", "a score is below its bound"
    HIGH_SCORE = "high_score", "skipped", "a score is above its bound"
    NEAR_DUPLICATE = "near_duplicate", "skipped", "looks like a clip that came before"
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
