"""Rows of JSON lines, one at a time: an object a line. A line that is none is refused, with its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from nova.preparation.items import Reason, Refusal
from nova.preparation.sources.names import shown
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.rows import Row, line_of, open_table


def json_rows(path: Path, table: str, encoding: str) -> Iterator[Row | Refusal]:
    """The objects of a file of JSON lines, in order; `table` names it in them. Empty lines are no rows."""
    with open_table(path, encoding, newline="\n") as text:
        number = 1
        while line := line_of(text, path, number):
            if line.strip():
                yield _row(line, table, number)
            number += 1


def _row(line: str, table: str, number: int) -> Row | Refusal:
    id = f"{table}:{number}"
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        return RefusedError(Reason.BAD_ROW, f"no JSON ({error.msg})").about(id, table, f"{id}:{error.colno}")
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        return RefusedError(Reason.BAD_ROW, f"no JSON that can be read ({error})").about(id, table, f"{id}:1")
    if not isinstance(values, dict):
        return RefusedError(Reason.BAD_ROW, f"expected an object, found {shown(line.strip())}").about(
            id, table, f"{id}:1"
        )
    return Row(id, values, partial(_place, id, line))


def _place(id: str, line: str, column: str | None) -> str:
    """table:line:character of a field's name."""
    return f"{id}:{max(line.find(json.dumps(column)), 0) + 1}" if column is not None else f"{id}:1"
