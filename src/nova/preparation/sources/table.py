"""Tables that name media or hold them: CSV, TSV, JSON lines and Parquet, read row by row in flat memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from nova.errors import DataError
from nova.preparation.items import Item, Reason, Refusal
from nova.preparation.sources.columns import Columns, checked_columns, columns_of
from nova.preparation.sources.csv_rows import DELIMITERS, csv_header, csv_rows
from nova.preparation.sources.json_rows import json_rows
from nova.preparation.sources.names import printable, suffix_of
from nova.preparation.sources.parquet_rows import parquet_header, parquet_rows
from nova.preparation.sources.records import Listing, items_of, spelled_out
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.rows import Row


def list_table(path: Path, listing: Listing) -> Iterator[Item | Refusal]:
    """The items of the table at `path`, in the order of its rows.

    The header is read at once, the rows as they are asked for. Damage further on ends the table with a refusal. JSON
    lines may have other fields in each line.

    Raises:
        DataError: the file is no table, or has no column for media or captions.
        UsageError: the options name a column that it does not have.
    """
    suffix = suffix_of(path.name)
    if suffix == ".parquet":
        columns = checked_columns(parquet_header(path), listing.options, path.name)
        return _parquet(path, columns, listing)
    if suffix in DELIMITERS:
        columns = checked_columns(csv_header(path, listing.options.encoding), listing.options, path.name)
        return _csv(path, columns, listing)
    return _json(path, listing)


def _parquet(path: Path, columns: Columns, listing: Listing) -> Iterator[Item | Refusal]:
    name = listing.place.id_of(path)
    for row in _until_damaged(parquet_rows(path, name, columns.used), name):
        yield from [row] if isinstance(row, Refusal) else items_of(row, columns, listing)


def _csv(path: Path, columns: Columns, listing: Listing) -> Iterator[Item | Refusal]:
    name = listing.place.id_of(path)
    for row in _until_damaged(csv_rows(path, name, listing.options.encoding), name):
        if isinstance(row, Refusal):
            yield row
        else:
            yield from items_of(replace(row, values=spelled_out(row.values, columns)), columns, listing)


def _json(path: Path, listing: Listing) -> Iterator[Item | Refusal]:
    name = listing.place.id_of(path)
    for row in _until_damaged(json_rows(path, name, listing.options.encoding), name):
        if isinstance(row, Refusal):
            yield row
        else:
            yield from items_of(row, columns_of(tuple(row.values), listing.options), listing)


def _until_damaged(rows: Iterable[Row | Refusal], table: str) -> Iterator[Row | Refusal]:
    """The rows, and a refusal of the table in place of those that cannot be reached."""
    try:
        yield from rows
    except DataError as error:
        yield RefusedError(Reason.BAD_TABLE, printable(str(error))).about(table, table)
