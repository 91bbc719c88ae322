"""A row of any table -> its items: media found or taken out of the row, stretches, captions and scores of each."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from nova.preparation.items import BytesMedia, FileMedia, Item, Reason, Refusal
from nova.preparation.sources.captions import clean_all, settled
from nova.preparation.sources.columns import Columns
from nova.preparation.sources.names import printable
from nova.preparation.sources.options import SourceOptions
from nova.preparation.sources.paths import Place, find
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.rows import Row
from nova.preparation.sources.seen import Seen
from nova.preparation.sources.values import number, pairs, seconds, stretch, unpacked, whole

Stretch = tuple[float | None, float | None]
_Value = TypeVar("_Value")

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)
_LONGEST_ID = 200


@dataclass(frozen=True)
class Listing:
    """What is the same for all items of a source: where its files are, its options, and the ids listed so far.

    files: ids of the files that tables in a folder have named; None where nobody asks.
    """

    place: Place
    options: SourceOptions
    ids: Seen = field(default_factory=Seen)
    files: Seen | None = None

    def starting_in(self, folder: Path) -> Listing:
        """The same, with the paths of tables relative to `folder`."""
        return replace(self, place=replace(self.place, start=Path(os.path.abspath(folder))))

    def refusal(self, refused: RefusedError, path: Path) -> Refusal:
        """What is refused, as that of the file at `path`."""
        return refused.about(self.place.id_of(path), printable(str(path)))

    def admit(self, item: Item, path: str, where: str = "") -> Item | Refusal:
        """The item, or its refusal if its id was listed before."""
        if self.ids.add(item.id):
            return item
        return RefusedError(Reason.DUPLICATE_ID, "another item of this source has this id").about(item.id, path, where)


def items_of(row: Row, columns: Columns, listing: Listing) -> Iterator[Item | Refusal]:
    """The items of a row: one, or one for each stretch in its span column.

    Of k stretches, a list of k captions or scores gives each its own.
    """
    id, path = row.id, ""
    try:
        media = _media(row, columns, listing)
        if isinstance(media, FileMedia):
            id, path = listing.place.id_of(media.path), printable(str(media.path))
            if listing.files is not None:
                listing.files.add(id)
        stretches, listed = _stretches(row.values, columns, listing.options)
    except RefusedError as refused:
        name = _named(row, columns)
        yield refused.about(id if path else name, path or name, row.locate(refused.column))
        return
    path = path or row.id
    for index, (start, end) in enumerate(stretches):
        part = id + _suffix(start, end)
        try:
            cells = _part(row.values, columns, index, len(stretches)) if listed else row.values
            captions, label, scores = texts_and_numbers(cells, columns, listing.options)
            captions = settled(captions, label, listing.options, row.id)
        except RefusedError as refused:
            column = refused.column or next(iter(columns.captions), None)
            yield refused.about(part, path, row.locate(column))
        else:
            yield listing.admit(Item(part, media, captions, start, end, scores, label), path, row.id)


def texts_and_numbers(
    cells: Mapping[str, object], columns: Columns, options: SourceOptions
) -> tuple[tuple[str, ...], int | None, dict[str, float]]:
    """Captions, label and scores in a row or a sidecar. Raises RefusedError with the column that is to blame."""
    label = _read(cells, columns.label, whole)
    scores = {}
    for name, column in columns.scores:
        try:
            score = _read(cells, column, number)
        except RefusedError:
            if (name, column) in options.scores:  # else a column that was only guessed to hold scores
                raise
        else:
            if score is not None:
                scores[name] = score
    found = [_read(cells, column, lambda value: clean_all([value], options)) or () for column in columns.captions]
    return tuple(dict.fromkeys(itertools.chain(*found))), label, scores


def spelled_out(cells: Mapping[str, object], columns: Columns) -> dict[str, object]:
    """The cells of a table of texts, such as CSV, with captions that spell a number or a list turned into these."""
    values = dict(cells)
    for column in columns.captions:
        text = cells.get(column)
        if isinstance(text, str) and _NUMBER.fullmatch(text.strip()):
            values[column] = float(text)
        else:
            values[column] = unpacked(text)
    return values


def _media(row: Row, columns: Columns, listing: Listing) -> FileMedia | BytesMedia:
    if columns.path is None:
        if columns.url is not None:
            raise RefusedError(Reason.URL, "the row has a URL and no path; download the media first", columns.url)
        raise RefusedError(Reason.BAD_ROW, "no field is known to hold a path or media")
    value = row.values.get(columns.path)
    if isinstance(value, bytes):
        return _held(value, row.id)
    if isinstance(value, Mapping):  # as Hugging Face stores images, sounds and videos
        data, name = value.get("bytes"), value.get("path")
        if isinstance(data, bytes):
            return _held(data, name if isinstance(name, str) else row.id)
        value = name
    try:
        return find(value, listing.place)
    except RefusedError as refused:
        raise RefusedError(refused.reason, refused.detail, columns.path) from refused


def _held(data: bytes, name: str) -> BytesMedia:
    return BytesMedia(data, printable(name), hashlib.sha256(data).hexdigest())


def _named(row: Row, columns: Columns) -> str:
    """What a row is about where its path cannot be used: this path as it is given, or the row's place."""
    name = None if columns.path is None else row.values.get(columns.path)
    if isinstance(name, Mapping):
        name = name.get("path")
    return printable(name[:_LONGEST_ID]) if isinstance(name, str) and name.strip() else row.id


def _stretches(cells: Mapping[str, object], columns: Columns, options: SourceOptions) -> tuple[list[Stretch], bool]:
    """The stretches of a row, at least one, and whether they come from a list of them."""
    if columns.span is not None:
        value = unpacked(cells.get(columns.span))
        if options.span is not None or isinstance(value, list | tuple):  # else a time of something else
            found = _read(cells, columns.span, pairs)
            if found:
                return found, True
    start = _read(cells, columns.start, seconds)
    return [_read(cells, columns.end, lambda end: stretch(start, end)) or (start, None)], False


def _part(cells: Mapping[str, object], columns: Columns, index: int, parts: int) -> dict[str, object]:
    values = dict(cells)
    for column in (*columns.captions, *(column for _, column in columns.scores)):
        value = unpacked(cells.get(column))
        if isinstance(value, list | tuple):
            if len(value) != parts:
                detail = f"{len(value)} values for {parts} stretches"
                raise RefusedError(Reason.BAD_VALUE, detail, column)
            values[column] = value[index]
    return values


def _suffix(start: float | None, end: float | None) -> str:
    """What a stretch adds to an id, as media fragments are written."""
    if start is None and end is None:
        return ""
    first, last = ("" if time is None else f"{time:.6f}".rstrip("0").rstrip(".") for time in (start, end))
    return f"#t={first},{last}" if last else f"#t={first}"


def _read(cells: Mapping[str, object], column: str | None, convert: Callable[[object], _Value]) -> _Value | None:
    """The cell of a column, converted; None if there is no such column. What is refused names the column."""
    if column is None:
        return None
    try:
        return convert(cells.get(column))
    except RefusedError as refused:
        raise RefusedError(refused.reason, refused.detail, column) from refused
