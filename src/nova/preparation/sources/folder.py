"""Folders of media with captions beside them, to any depth, in an order that names alone decide.

A folder may hold tables called `metadata`, as Hugging Face's image folders do, and WebDataset archives. Every file
is listed, refused, or counted as ignored. In memory are the names of one folder at a time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from nova.errors import DataError
from nova.files import reason
from nova.media.files import opened
from nova.preparation.items import Item, Reason, Refusal
from nova.preparation.sources.names import ARCHIVE, MEDIA, TABLES, belongs_to_nobody, printable, shown, suffix_of
from nova.preparation.sources.paths import stamped
from nova.preparation.sources.records import Listing
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.seen import Seen
from nova.preparation.sources.sidecars import SIDECARS, read_sidecars
from nova.preparation.sources.table import list_table
from nova.preparation.sources.webdataset import list_archive

_METADATA = frozenset(f"metadata{suffix}" for suffix in TABLES)


@dataclass
class _Names:
    """The names in a folder by what they are, each list sorted; those `ignored` with the reason why."""

    folders: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    media: list[str] = field(default_factory=list)
    sidecars: list[str] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)


def list_folder(folder: Path, listing: Listing) -> Iterator[Item | Refusal]:
    """The items in `folder`: of its tables, then of its own files, then of its subfolders.

    Links to files count where they lead to a file within the roots, links to folders are not followed.
    """
    listing = replace(listing, files=Seen())
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        try:
            names = _names(folder)
        except OSError as error:
            yield listing.refusal(RefusedError(Reason.UNREADABLE, reason(error)), folder)
            continue
        for name in (*names.tables, *names.archives):
            yield from _inner(folder / name, listing)
        yield from _media(folder, names, listing)
        for name, why in names.ignored:
            yield listing.refusal(RefusedError(Reason.IGNORED_FILE, why), folder / name)
        waiting += [folder / name for name in reversed(names.folders)]


def _names(folder: Path) -> _Names:
    names = _Names()
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = suffix_of(entry.name)
            if belongs_to_nobody(entry.name):
                names.ignored.append((entry.name, "of the system, hidden, or half copied"))
            elif entry.is_dir(follow_symlinks=False):
                names.folders.append(entry.name)
            elif entry.is_dir():
                names.ignored.append((entry.name, "a link to a folder is not followed"))
            elif entry.name.lower() in _METADATA:
                names.tables.append(entry.name)
            elif suffix in MEDIA:
                names.media.append(entry.name)
            elif suffix in SIDECARS:
                names.sidecars.append(entry.name)
            elif suffix == ARCHIVE:
                names.archives.append(entry.name)
            else:
                names.ignored.append((entry.name, _unknown(suffix)))
    for each in vars(names).values():
        each.sort()
    return names


def _unknown(suffix: str) -> str:
    if suffix in TABLES:
        return "a table that is not called metadata; give it as a source of its own"
    return f"{shown(suffix)} is not known as media" if suffix else "no suffix"


def _media(folder: Path, names: _Names, listing: Listing) -> Iterator[Item | Refusal]:
    owners = Counter(map(_stem, names.media))
    whole = set(names.media) if names.sidecars else set[str]()
    sidecars = dict[str, list[str]]()
    for name in names.sidecars:
        stem = _stem(name)
        if stem in owners or stem in whole:  # a.jpg may have a.txt or a.jpg.txt
            sidecars.setdefault(stem, []).append(name)
        else:
            names.ignored.append((name, "no media beside it"))
    for name in names.media:
        path = folder / name
        id = listing.place.id_of(path)
        if listing.files is not None and id in listing.files:
            continue
        try:
            media = stamped(path, listing.place)
            stem = _stem(name)
            near = sidecars.get(name) or sidecars.get(stem, [])
            sharing = 0 if name in sidecars else owners[stem] + (stem in whole)
            if near and sharing > 1:
                raise RefusedError(Reason.AMBIGUOUS_CAPTION, f"{shown(near[0])} could belong to any of {sharing} files")
            read = [(sidecar, partial(_read, folder / sidecar, listing)) for sidecar in near]
            captions, label, scores = read_sidecars(read, listing.options, id)
        except RefusedError as refused:
            yield listing.refusal(refused, path)
        else:
            yield listing.admit(Item(id, media, captions, scores=scores, label=label), printable(str(path)))


def _inner(path: Path, listing: Listing) -> Iterator[Item | Refusal]:
    """The items of a table or an archive in the folder."""
    try:
        stamped(path, listing.place)
        if suffix_of(path.name) == ARCHIVE:
            items = list_archive(path, listing)
        else:
            items = list_table(path, listing.starting_in(path.parent))
    except RefusedError as refused:
        yield listing.refusal(refused, path)
    except DataError as error:
        yield listing.refusal(RefusedError(Reason.BAD_TABLE, printable(str(error))), path)
    else:
        yield from items


def _read(path: Path, listing: Listing, most: int) -> bytes:
    stamped(path, listing.place)
    try:
        with opened(path) as file:
            return file.read(most)
    except (DataError, OSError) as error:
        raise RefusedError(Reason.UNREADABLE, printable(str(error))) from error


def _stem(name: str) -> str:
    return name[: len(name) - len(suffix_of(name))]
