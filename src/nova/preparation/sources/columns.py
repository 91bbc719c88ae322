"""Which column of a table means what, by the names that published data sets give them, or as the user says.

Names are compared without case, and with spaces and hyphens as underscores. Of each list the first that is there is
taken. Captions are all of `CAPTIONS`, or, where there is none of them, the first of `TEXTS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from nova.errors import DataError, UsageError, nearest
from nova.preparation.sources.options import SourceOptions

PATHS = (
    *("path", "file_path", "filepath", "file_name", "filename", "file", "local_path", "media_path", "media"),
    *("video_path", "image_path", "clip_path", "video_file", "image_file", "video", "image", "clip", "img"),
    *("mp4", "jpg", "png", "webp", "video_bytes", "image_bytes", "bytes", "key", "video_id", "videoid"),
)
CAPTIONS = (
    *("caption", "captions", "cap", "short_caption", "caption_short", "brief_caption", "long_caption", "caption_long"),
    *("dense_caption", "detailed_caption", "recaption", "re_caption"),
)
TEXTS = ("text", "texts", "txt", "prompt", "description", "alt_text", "alt", "title", "name", "sentence")
STARTS = ("start", "start_time", "start_sec", "start_second", "start_seconds", "clip_start", "t_start")
ENDS = ("end", "end_time", "end_sec", "end_second", "end_seconds", "clip_end", "t_end")
SPANS = ("timestamp", "timestamps", "span", "segment", "segments")
LABELS = ("cls", "class_id", "label")
SCORES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aesthetic": ("aesthetic", "aesthetic_score", "aesthetics_score", "aesthetic_score_laion_v2", "aesthetics"),
        "similarity": (
            *("similarity", "matching_score", "clip_similarity", "clip_score", "clip_similarity_vitl14"),
            *("clip_l14_similarity_score", "clip_similarity_vitb32", "clip_b32_similarity_score"),
        ),
        "motion": ("motion", "motion_score", "flow_score", "optical_flow_score"),
        "watermark": ("watermark", "watermark_score", "pwatermark"),
        "unsafe": ("unsafe", "punsafe", "nsfw_score", "nsfw_score_opennsfw2"),
    }
)
_URLS = ("url", "image_url", "video_url", "contenturl", "content_loc")


@dataclass(frozen=True)
class Columns:
    """The names that columns of one table have there; None or nothing for what it does not give."""

    path: str | None
    captions: tuple[str, ...]
    start: str | None
    end: str | None
    span: str | None
    label: str | None
    scores: tuple[tuple[str, str], ...]
    url: str | None
    vague: bool
    """Whether what holds captions could hold something else."""

    @property
    def used(self) -> tuple[str, ...]:
        """All of them, each once."""
        single = (self.path, self.start, self.end, self.span, self.label)
        names = (*single, *self.captions, *(column for _, column in self.scores))
        return tuple(dict.fromkeys(name for name in names if name is not None))


@lru_cache(maxsize=256)
def columns_of(names: tuple[str, ...], options: SourceOptions) -> Columns:
    """What the columns called `names` mean. One that the user names stands also where it is not among them."""
    there = {_plain(name): name for name in reversed(names)}

    def first(wanted: Sequence[str]) -> str | None:
        return next((there[name] for name in wanted if name in there), None)

    sure = options.captions or tuple(there[name] for name in CAPTIONS if name in there)
    text = first(TEXTS)
    captions = sure or (() if text is None else (text,))
    guessed = {score: column for score, known in SCORES.items() if (column := first(known)) is not None}
    return Columns(
        path=options.path or first(PATHS),
        captions=captions,
        start=options.start or first(STARTS),
        end=options.end or first(ENDS),
        span=options.span or first(SPANS),
        label=options.label or (None if captions else first(LABELS)),
        scores=tuple((guessed | dict(options.scores)).items()),
        url=first(_URLS),
        vague=not sure,
    )


def checked_columns(names: Sequence[str], options: SourceOptions, table: str) -> Columns:
    """`columns_of` a table whose rows all have the same.

    Raises:
        UsageError: the user names a column that is not there.
        DataError: a name is there twice, or no column holds paths or, unless that is allowed, captions.
    """
    twice = {name for name in names if list(names).count(name) > 1}
    if twice:
        raise DataError(f"{table}: has two columns {sorted(twice)[0]!r}; rename one")
    columns = columns_of(tuple(names), options)
    for column in columns.used:
        if column not in names:
            raise UsageError(f"{table}: has no column {column!r}{nearest(column, names)}")
    found = f"found {', '.join(names[:20]) or 'none'}"
    if columns.path is None:
        advice = "; URLs are not downloaded, do that first" if columns.url else ""
        raise DataError(f"{table}: no column is known to hold paths or media ({found}); name it{advice}")
    if not columns.captions and columns.label is None and options.no_caption != "empty":
        raise DataError(f"{table}: no column is known to hold captions ({found}); name it, or allow empty captions")
    return columns


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
