"""Rows of CSV and TSV files, one at a time. A line that breaks the format is refused, and the next is read afresh."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from nova.errors import DataError
from nova.preparation.items import Reason, Refusal
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.rows import Row, line_of, open_table

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def csv_header(path: Path, encoding: str) -> tuple[str, ...]:
    """The column names in the first line. Raises DataError if there are none."""
    with open_table(path, encoding, newline="") as text:
        try:
            names = next(csv.reader(_Lines(text, path), delimiter=DELIMITERS[path.suffix.lower()], strict=True), [])
        except csv.Error as error:
            raise DataError(f"{path}:1: the header is no CSV ({error}); write column names there") from error
    if not any(name.strip() for name in names):
        raise DataError(f"{path}:1: is empty; expected a line of column names")
    return tuple(names)


def csv_rows(path: Path, table: str, encoding: str) -> Iterator[Row | Refusal]:
    """The rows after the header, in order; `table` names the file in them.

    A quote that never closes would swallow what follows. So where a record of several lines is bad, its first line
    is refused and reading goes on with its second.
    """
    delimiter = DELIMITERS[path.suffix.lower()]
    with open_table(path, encoding, newline="") as text:
        lines = _Lines(text, path)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header = next(reader)
        while True:
            lines.forget()
            try:
                cells = next(reader, None)
                fault = "" if cells is None else _count_fault(cells, header)
            except csv.Error as error:
                cells, fault = [], f"a quote does not close, or more follows it ({error})"
            if cells is None:
                return
            if fault:
                lines.reread()
            record = _Record(table, lines.first, "".join(lines.taken), delimiter)
            if fault:
                yield RefusedError(Reason.BAD_ROW, fault).about(record.id, table, record.place_of_fault())
            elif cells:
                yield Row(record.id, dict(zip(header, cells, strict=True)), partial(record.place, header))


class _Lines:
    """The lines of a text, of which those taken last can be read again."""

    def __init__(self, text: TextIO, path: Path) -> None:
        self._text = text
        self._path = path
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        self.first = 1
        """The number of the first line in `taken`."""

    def forget(self) -> None:
        """Start a new record."""
        self.first += len(self.taken)
        self.taken = []

    def reread(self) -> None:
        """Let all but the first line of this record come again."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        number = self.first + len(self.taken)
        line = self._again.popleft() if self._again else line_of(self._text, self._path, number)
        if not line:
            raise StopIteration
        self.taken.append(line)
        return line


@dataclass(frozen=True)
class _Record:
    """The text of a record, scanned only when something in it is to be located."""

    table: str
    line: int
    text: str
    delimiter: str

    @property
    def id(self) -> str:
        """table:line of its first line."""
        return f"{self.table}:{self.line}"

    def place(self, header: list[str], column: str | None) -> str:
        """table:line:character of a column's cell, or of the first."""
        starts, _ = self._scan()
        return self._at(starts[header.index(column)] if column in header else 0)

    def place_of_fault(self) -> str:
        """table:line:character of what is wrong: a quote, or else the end."""
        _, fault = self._scan()
        return self._at(len(self.text.rstrip("\r\n")) if fault is None else fault)

    def _at(self, offset: int) -> str:
        before = self.text[:offset].split("\n")
        return f"{self.table}:{self.line + len(before) - 1}:{len(before[-1]) + 1}"

    def _scan(self) -> tuple[list[int], int | None]:
        """Where cells start, and the first quote that does not close or that is not followed by a delimiter."""
        starts, quote, closed = [0], None, False
        for offset, character in enumerate(self.text):
            if quote is not None and not closed:
                closed = character == '"'
            elif closed and character == '"':
                closed = False  # two quotes stand for one
            elif character == self.delimiter:
                starts.append(offset + 1)
                quote, closed = None, False
            elif character == '"' and offset == starts[-1]:
                quote = offset
            elif closed and character not in "\r\n":
                return starts, offset
        return starts, quote if quote is not None and not closed else None


def _count_fault(cells: list[str], header: list[str]) -> str:
    if not cells or len(cells) == len(header):
        return ""  # an empty line is no row
    return f"{len(cells)} cells, the header has {len(header)}"
