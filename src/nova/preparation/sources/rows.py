"""What readers of tables have in common: a row, and where in its file a column of it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nova.errors import DataError
from nova.files import reason
from nova.preparation.sources.captions import MARKS

LONGEST_LINE = 1 << 24
"""Characters. What has longer lines is no table."""


def cell_of(id: str, column: str | None) -> str:
    """Where a cell of the row `id` stands, in tables that have no lines and characters."""
    return f"{id}:{column}" if column else id


@dataclass(frozen=True)
class Row:
    """The cells of a row by column. `id` is table:line; `locate` gives table:line:character of a column's cell."""

    id: str
    values: Mapping[str, object]
    locate: Callable[[str | None], str]


def open_table(path: Path, encoding: str, newline: str) -> TextIO:
    """The text of a table, by its byte-order mark or in `encoding`; lines end as `newline` says to `open`.

    Bytes that are no text come as lone surrogates, so that one bad cell does not end the table. Raises DataError.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
        mark, encoding = next((pair for pair in MARKS if head.startswith(pair[0])), (b"", encoding))
        text = path.open(encoding=encoding, errors="surrogateescape", newline=newline)
        text.read(1 if mark else 0)  # the mark
        return text
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({reason(error)}); give the path of a readable table") from error


def line_of(text: TextIO, path: Path, number: int) -> str:
    """The next line with its end, empty after the last. Raises DataError if this is no text or has no lines."""
    try:
        line = text.readline(LONGEST_LINE)
    except UnicodeError as error:  # of UTF-16 and UTF-32, where bad bytes leave no way on
        raise DataError(f"{path}:{number}: cannot be decoded ({error}); save it as UTF-8") from error
    if len(line) >= LONGEST_LINE:
        raise DataError(f"{path}:{number}: the line is longer than {LONGEST_LINE} characters; this is no table")
    return line
