"""Cells of a table -> seconds, stretches, scores and labels. Raises RefusedError(BAD_VALUE) for what is neither."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from nova.preparation.items import Reason
from nova.preparation.sources.captions import is_absent
from nova.preparation.sources.names import shown
from nova.preparation.sources.refused import RefusedError

_STAMP = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d{1,9})?)")
_LONGEST_LIST = 100_000


def seconds(value: object) -> float | None:
    """A time in a video: a number of seconds, or a stamp such as `0:00:05.2` or `1:05`; None if absent."""
    if is_absent(value):
        return None
    if isinstance(value, str) and (stamp := _STAMP.fullmatch(value.strip())):
        hours, minutes, rest = stamp.groups()
        if int(minutes) < 60 and float(rest.replace(",", ".")) < 60:
            return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
    found = _number(value)
    if found < 0 or not math.isfinite(found):
        raise RefusedError(Reason.BAD_VALUE, f"expected seconds or a stamp such as 0:00:05.2, found {shown(value)}")
    return found


def stretch(start: object, end: object) -> tuple[float | None, float | None]:
    """Start and end in seconds, in this order."""
    first, last = seconds(start), seconds(end)
    if last is not None and last <= (first or 0.0):
        raise RefusedError(Reason.BAD_VALUE, f"expected an end after {first or 0:g} seconds, found {shown(end)}")
    return first, last


def number(value: object) -> float | None:
    """A finite number, also written as text; None if absent."""
    if is_absent(value):
        return None
    found = _number(value)
    if not math.isfinite(found):
        raise RefusedError(Reason.BAD_VALUE, f"expected a number, found {shown(value)}")
    return found


def _number(value: object) -> float:
    """NaN for what is no number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def whole(value: object) -> int | None:
    """A class label: a whole number from 0; None if absent."""
    found = number(value)
    if found is not None and (found < 0 or found != int(found) or found >= 2**31):
        raise RefusedError(Reason.BAD_VALUE, f"expected a whole number from 0, found {shown(value)}")
    return None if found is None else int(found)


def pairs(value: object) -> list[tuple[float | None, float | None]]:
    """The stretches in a cell: one pair of times, or a list of pairs; none if absent."""
    value = unpacked(value)
    if is_absent(value):
        return []
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise RefusedError(Reason.BAD_VALUE, f"expected [start, end] or a list of such pairs, found {shown(value)}")
    nested = value if all(isinstance(entry, list | tuple) for entry in value) else [value]
    if any(len(entry) != 2 for entry in nested):
        raise RefusedError(Reason.BAD_VALUE, f"expected pairs of start and end, found {shown(value)}")
    return [stretch(*entry) for entry in nested]


def unpacked(value: object) -> Any:
    """The list or object that a text cell spells, as JSON or as Python prints it; any other value as it is."""
    if not isinstance(value, str) or len(value) > _LONGEST_LIST:
        return value
    text = value.strip()
    if (text[:1], text[-1:]) not in (("[", "]"), ("{", "}")):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # all that both raise for any text
            continue
    return value
