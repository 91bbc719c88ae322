"""Names of shards in short: `shards-{000..009}.tar`, `{train,val}-{0..3}.tar`."""

from __future__ import annotations

import itertools
import re

from nova.errors import UsageError

_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 100_000


def expanded(pattern: str) -> list[str]:
    """All names that `pattern` stands for, in its order; ranges keep leading zeros. Raises UsageError if too many."""
    pieces = _GROUP.split(pattern)
    choices = [_choices(piece) if index % 2 else [piece] for index, piece in enumerate(pieces)]
    count = 1
    for each in choices:
        count *= len(each)
    if count > _MOST:
        raise UsageError(f"{pattern}: stands for {count} names; give at most {_MOST} at once")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(group: str) -> list[str]:
    bounds = _RANGE.fullmatch(group)
    if bounds is None:
        return group.split(",")
    first, last = bounds.groups()
    width = len(first) if first.startswith("0") else 0
    if int(last) < int(first) or int(last) - int(first) >= _MOST:
        raise UsageError(f"{{{group}}}: expected a range upwards of at most {_MOST} numbers")
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
