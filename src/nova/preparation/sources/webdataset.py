"""WebDataset archives: tars whose members of one name, up to its first dot, are one sample. Read in place.

Nothing is unpacked: an item says where in the archive its media lie. Of two members of one name the first counts and
the second is refused; what could mean two things is refused.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from nova.errors import DataError
from nova.media.files import opened
from nova.preparation.items import Item, MemberMedia, Reason, Refusal
from nova.preparation.sources.names import MEDIA, belongs_to_nobody, printable, suffix_of
from nova.preparation.sources.paths import stamp_of
from nova.preparation.sources.records import Listing
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.sidecars import SIDECARS, read_sidecars
from nova.preparation.sources.tar_headers import Member, members

_MOST = 1000


@dataclass(frozen=True)
class _Archive:
    path: Path
    id: str
    file: BinaryIO

    def id_of(self, member: Member) -> str:
        """The archive's id and the name in it."""
        return f"{self.id}/{printable(posixpath.normpath(member.name))}"

    def read(self, member: Member, most: int) -> bytes:
        """A member, up to a number of bytes."""
        self.file.seek(member.offset)
        return self.file.read(min(member.size, most))


@dataclass
class _Sample:
    """Members of one key that follow each other."""

    key: str
    media: list[Member] = field(default_factory=list)
    sidecars: list[Member] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def list_archive(path: Path, listing: Listing) -> Iterator[Item | Refusal]:
    """The items of the tar at `path`, in the order of its members; a damaged one gives those before the damage."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(opened(path))
        except DataError as error:
            yield listing.refusal(RefusedError(Reason.UNREADABLE, printable(str(error))), path)
        else:
            yield from _samples(_Archive(path, listing.place.id_of(path), file), listing)


def _samples(archive: _Archive, listing: Listing) -> Iterator[Item | Refusal]:
    sample = _Sample("")
    try:
        for member in members(archive.file):
            name = posixpath.normpath(member.name)
            id = archive.id_of(member)
            folder, _, last = name.rpartition("/")
            key = f"{folder}/{last.partition('.')[0]}"
            if member.refused is not None:
                yield member.refused.about(id, id)
                continue
            if any(map(belongs_to_nobody, name.split("/"))) or suffix_of(last) not in (*MEDIA, *SIDECARS):
                yield RefusedError(Reason.IGNORED_FILE, "no media, caption or label").about(id, id)
                continue
            if key != sample.key:
                yield from _items(sample, archive, listing)
                sample = _Sample(key)
            if name in sample.names:
                yield RefusedError(Reason.DUPLICATE_ID, "an earlier member has this name").about(id, id)
                continue
            if len(sample.names) == _MOST:
                raise RefusedError(Reason.BAD_ARCHIVE, f"more than {_MOST} members are one sample, {printable(key)}")
            sample.names.add(name)
            (sample.media if suffix_of(last) in MEDIA else sample.sidecars).append(member)
        fault = None
    except RefusedError as refused:
        fault = refused
    yield from _items(sample, archive, listing)
    if fault is not None:
        yield fault.about(archive.id, archive.id)


def _items(sample: _Sample, archive: _Archive, listing: Listing) -> Iterator[Item | Refusal]:
    for member in () if sample.media else sample.sidecars:
        id = archive.id_of(member)
        yield RefusedError(Reason.IGNORED_FILE, "no media beside it").about(id, id)
    sidecars = [(posixpath.basename(each.name), partial(archive.read, each)) for each in sample.sidecars]
    stamp = stamp_of(os.fstat(archive.file.fileno()))
    for member in sample.media:
        id = archive.id_of(member)
        try:
            if sidecars and len(sample.media) > 1:
                others = ", ".join(printable(posixpath.basename(each.name)) for each in sample.media[:5])
                raise RefusedError(
                    Reason.AMBIGUOUS_CAPTION, f"one sample, by its name up to the first dot, holds {others}"
                )
            captions, label, scores = read_sidecars(sidecars, listing.options, id)
        except RefusedError as refused:
            yield refused.about(id, id)
        else:
            media = MemberMedia(archive.path, member.offset, member.size, member.name, stamp)
            yield listing.admit(Item(id, media, captions, scores=scores, label=label), id)
