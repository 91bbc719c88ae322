"""What a source is, and its items: one after another, in a fixed order, in memory that does not grow with them.

What grows is the set of ids, by 12 to 24 bytes an item.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nova.errors import DataError, ResourceError, UsageError
from nova.files import reason
from nova.preparation.items import Item, Reason, Refusal
from nova.preparation.sources import huggingface
from nova.preparation.sources.braces import expanded
from nova.preparation.sources.folder import list_folder
from nova.preparation.sources.names import ARCHIVE, TABLES, belongs_to_nobody, printable, suffix_of
from nova.preparation.sources.options import SourceOptions
from nova.preparation.sources.paths import Place, stamped
from nova.preparation.sources.records import Listing
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.table import list_table
from nova.preparation.sources.webdataset import list_archive

_KINDS = f"a folder, a table ({', '.join(sorted(TABLES))}), an uncompressed {ARCHIVE}, or {huggingface.PREFIX}name"
_BESIDE_TABLES = frozenset((".md", ".json", ".txt", ""))


def list_items(source: str | Path, options: SourceOptions | None = None) -> Iterator[Item | Refusal]:
    """Everything that `source` lists, as an item or as its refusal, in an order that its content alone decides.

    `source` is a folder, a table or a tar; several tables or tars by a pattern such as `shards-{000..009}.tar`; a
    folder that `datasets` saved; or `hf:` and the name of a data set on the hub. What the source is, and the first
    table's header, is looked at before this returns.

    Raises:
        UsageError: an option names what is not there, or a package is not installed.
        DataError: there is no such source, or it is of no known kind, or damaged as a whole; or an item has no
            caption and the options make that an error.
        ResourceError: the system stops reading while the items are listed.
    """
    options = options or SourceOptions()
    if options.root is not None and not options.root.is_dir():
        raise UsageError(f"{options.root}: the root is no folder; give the folder that paths are relative to")
    with _readable(str(source)):
        items = _items(str(source), options)
    return _guarded(str(source), items)


def _items(source: str, options: SourceOptions) -> Iterator[Item | Refusal]:
    roots = () if options.root is None else (options.root,)
    if source.startswith(huggingface.PREFIX):
        place = Place.of(*roots, *huggingface.hub_caches())
        return huggingface.from_hub(source.removeprefix(huggingface.PREFIX), Listing(place, options))
    path = Path(source)
    if path.is_dir():
        listing = Listing(Place.of(path, *roots), options)
        if huggingface.is_saved(path):
            return huggingface.from_folder(path, listing)
        tables = _only_tables(path)
        return _files(tables, listing.place, options) if tables else list_folder(listing.place.base, listing)
    paths = [path] if path.exists() else [Path(name) for name in expanded(source)]
    for each in paths:
        if suffix_of(each.name) not in (ARCHIVE, *TABLES):
            raise DataError(f"{printable(str(each))}: is not known as a source; give {_KINDS}")
    if not any(each.is_file() for each in paths):
        raise DataError(f"{printable(source)}: no such file or folder; give {_KINDS}")
    return _files(paths, Place.of(Path("/")), options)


def _files(paths: Sequence[Path], within: Place, options: SourceOptions) -> Iterator[Item | Refusal]:
    """The items of several tables or archives; those that are not there, or lead out of `within`, are refused."""
    paths = [Path(os.path.abspath(path)) for path in paths]
    base = options.root or Path(os.path.commonpath([path.parent for path in paths]))
    listing = Listing(Place.of(base), options)

    def one(path: Path) -> Iterator[Item | Refusal]:
        try:
            stamped(path, within)
        except RefusedError as refused:
            return iter([listing.refusal(refused, path)])
        if suffix_of(path.name) == ARCHIVE:
            return list_archive(path, listing)
        return list_table(path, listing.starting_in(options.root or path.parent))

    first = one(paths[0])  # looked into at once, so that what is wrong with it is said before anything is made

    def all_of_them() -> Iterator[Item | Refusal]:
        yield from first
        for path in paths[1:]:
            try:
                items = one(path)
            except DataError as error:
                yield listing.refusal(RefusedError(Reason.BAD_TABLE, printable(str(error))), path)
            else:
                yield from items

    return all_of_them()


def _only_tables(folder: Path) -> list[Path]:
    """The Parquet files of a folder that holds them and no media, sorted by name; none if it holds anything else."""
    names = sorted(name for name in os.listdir(folder) if not belongs_to_nobody(name))
    tables = [folder / name for name in names if suffix_of(name) == ".parquet"]
    others = [
        name for name in names if suffix_of(name) not in (".parquet", *_BESIDE_TABLES) or (folder / name).is_dir()
    ]
    return tables if not others else []


def _guarded(source: str, items: Iterator[Item | Refusal]) -> Iterator[Item | Refusal]:
    with _readable(source):
        yield from items


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """What the system says no to, in words."""
    try:
        yield
    except OSError as error:
        name = printable(source)
        raise ResourceError(f"{name}: can no longer be read ({reason(error)}); make it readable and go on") from error
