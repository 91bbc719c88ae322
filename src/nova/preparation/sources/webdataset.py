"""WebDataset archives: tars whose members of one name, up to its first dot, are one sample. Read in place.

Nothing is unpacked: an item says where in the archive its media lie. Of two members of one name the first counts and
the second is refused; what could mean two things is refused.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from nova.media.files import opened
from nova.preparation.items import Item, MemberMedia, Reason, Refusal
from nova.preparation.sources.names import MEDIA, belongs_to_nobody, printable, suffix_of
from nova.preparation.sources.paths import stamp_of
from nova.preparation.sources.records import Listing
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.sidecars import SIDECARS, read_sidecars
from nova.preparation.sources.tar_headers import Member, members

_MOST = 1000


@dataclass
class _Sample:
    """Members of one key that follow each other."""

    key: str
    media: list[Member] = field(default_factory=list)
    sidecars: list[Member] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def list_archive(path: Path, listing: Listing) -> Iterator[Item | Refusal]:
    """The items of the tar at `path`, in the order of its members; a damaged one gives those before the damage."""
    archive = listing.place.id_of(path)
    with opened(path) as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        sample = _Sample("")
        try:
            for member in members(file):
                name = posixpath.normpath(member.name)
                id = f"{archive}/{printable(name)}"
                folder, _, last = name.rpartition("/")
                if member.refused is not None:
                    yield member.refused.about(id, id)
                    continue
                if any(map(belongs_to_nobody, name.split("/"))) or suffix_of(last) not in (*MEDIA, *SIDECARS):
                    yield RefusedError(Reason.IGNORED_FILE, "no media, caption or label").about(id, id)
                    continue
                key = f"{folder}/{last.partition('.')[0]}"
                if key != sample.key:
                    yield from _items(sample, path, file, stamp, archive, listing)
                    sample = _Sample(key)
                if name in sample.names:
                    yield RefusedError(Reason.DUPLICATE_ID, "an earlier member has this name").about(id, id)
                    continue
                if len(sample.names) == _MOST:
                    raise RefusedError(
                        Reason.BAD_ARCHIVE, f"more than {_MOST} members are of one sample, {printable(key)}"
                    )
                sample.names.add(name)
                (sample.media if suffix_of(last) in MEDIA else sample.sidecars).append(member)
        except RefusedError as refused:
            yield from _items(sample, path, file, stamp, archive, listing)
            yield refused.about(archive, archive)
        else:
            yield from _items(sample, path, file, stamp, archive, listing)


def _items(
    sample: _Sample, path: Path, file: BinaryIO, stamp: str, archive: str, listing: Listing
) -> Iterator[Item | Refusal]:
    def id_of(member: Member) -> str:
        return f"{archive}/{printable(posixpath.normpath(member.name))}"

    for member in () if sample.media else sample.sidecars:
        yield RefusedError(Reason.IGNORED_FILE, "no media beside it").about(id_of(member), id_of(member))
    sidecars = [(posixpath.basename(each.name), partial(_read, file, each)) for each in sample.sidecars]
    for member in sample.media:
        id = id_of(member)
        try:
            if sidecars and len(sample.media) > 1:
                others = ", ".join(printable(posixpath.basename(each.name)) for each in sample.media[:5])
                raise RefusedError(Reason.AMBIGUOUS_CAPTION, f"one sample holds {others}")
            captions, label, scores = read_sidecars(sidecars, listing.options, id)
        except RefusedError as refused:
            yield refused.about(id, id)
        else:
            media = MemberMedia(path, member.offset, member.size, member.name, stamp)
            yield listing.admit(Item(id, media, captions, scores=scores, label=label), id)


def _read(file: BinaryIO, member: Member, most: int) -> bytes:
    file.seek(member.offset)
    return file.read(min(member.size, most))
