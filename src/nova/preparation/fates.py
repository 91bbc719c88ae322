"""What became of every item: a fate a clip, or one for an item without clips. `report.jsonl` is a list of them.

A later run knows by these lines what is done already, so that a fate also says where its latents lie.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nova.preparation.items import BytesMedia, Clip, Item, MemberMedia, Reason, Refusal

REPORT, SUMMARY = "report.jsonl", "summary.json"
Fated = Literal["ok", "skipped", "failed"]


@dataclass(frozen=True)
class Fate:
    """One line of the report.

    path: of the file, or of the archive and the member in it.  reason, detail: of what is not ok.  key: of the item
    with all that its samples depend on; none where the source itself refuses.  shard, row: where the latents lie.
    The others are those of `Clip`; sizes are (height, width) in pixels, `captions` are lengths in characters,
    `cut_captions` counts those with more tokens than the text encoder takes.
    """

    id: str
    path: str
    status: Fated
    reason: str | None = None
    detail: str | None = None
    key: str | None = None
    shard: str | None = None
    row: int | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None
    source_size: tuple[int, int] | None = None
    fps: float | None = None
    motion: float | None = None
    start: float | None = None
    end: float | None = None
    hash: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    captions: tuple[int, ...] = ()
    cut_captions: int = 0

    @property
    def stored(self) -> bool:
        """Whether its latents are in a shard."""
        return self.shard is not None

    @property
    def bucket(self) -> tuple[int, int, int]:
        """Frames, height and width of a clip."""
        assert self.frames is not None, f"{self.id} is no clip"
        assert self.size is not None, f"{self.id} is no clip"
        return self.frames, *self.size

    @property
    def place(self) -> tuple[str, int]:
        """Shard and row of the latents of a clip that is `stored`."""
        assert self.shard is not None, f"{self.id} has no latents yet"
        assert self.row is not None, f"{self.id} has no latents yet"
        return self.shard, self.row

    def refused(self, reason: Reason, detail: str) -> Fate:
        """The fate of the same clip when it is left out."""
        return dataclasses.replace(self, status=reason.status, reason=reason.code, detail=detail, shard=None, row=None)


_TUPLES = ("size", "source_size", "notes", "captions")


def path_of(item: Item) -> str:
    """Where an item's bytes are, in one text."""
    media = item.media
    if isinstance(media, BytesMedia):
        return media.name
    return f"{media.archive}/{media.name}" if isinstance(media, MemberMedia) else str(media.path)


def fate_of_clip(clip: Clip, key: str, cut_captions: int = 0) -> Fate:
    """The fate of a clip that is to be trained on; its latents have no place yet."""
    frames, height, width, _ = clip.frames.shape
    return Fate(
        id=clip.id,
        path=path_of(clip.item),
        status="ok",
        key=key,
        frames=frames,
        size=(height, width),
        source_size=clip.source_size,
        fps=clip.fps,
        motion=clip.motion,
        start=clip.start,
        end=clip.end,
        hash=clip.hash,
        scores=dict(clip.scores),
        notes=clip.notes,
        captions=tuple(map(len, clip.item.captions)),
        cut_captions=cut_captions,
    )


def fate_of_refusal(refusal: Refusal, key: str | None = None) -> Fate:
    """The fate of what a source, a worker or a rule refused."""
    reason = refusal.reason
    return Fate(refusal.id, refusal.path, reason.status, reason.code, refusal.detail, key)


def to_line(fate: Fate) -> bytes:
    """A line of JSON: `id`, `path`, `status` and `reason` always, the others where they are known."""
    fields = dict(vars(fate))
    if fate.hash is not None:
        fields["hash"] = f"{fate.hash:016x}"  # beyond 2⁵³ a JSON number is not safe everywhere
    if not fate.cut_captions:
        del fields["cut_captions"]
    shown = {name: value for name, value in fields.items() if name == "reason" or value not in (None, (), {})}
    return json.dumps(shown, ensure_ascii=True).encode() + b"\n"


def from_line(line: bytes) -> Fate:
    """The inverse of `to_line`. Raises ValueError, KeyError or TypeError for anything else."""
    fields: dict[str, Any] = json.loads(line)
    for name in _TUPLES:
        if name in fields:
            fields[name] = tuple(fields[name])
    if "hash" in fields:
        fields["hash"] = int(fields["hash"], 16)
    return Fate(**fields)
