"""Captions beside media: `.txt` with text, `.json` with what a row of a table would hold, `.cls` with a label."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from nova.preparation.items import Reason
from nova.preparation.sources.captions import clean_all, decode, settled
from nova.preparation.sources.columns import columns_of
from nova.preparation.sources.names import shown, suffix_of
from nova.preparation.sources.options import SourceOptions
from nova.preparation.sources.records import texts_and_numbers
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.values import whole

SIDECARS = (".txt", ".caption", ".json", ".cls")
"""In the order in which their captions count."""

Facts = tuple[tuple[str, ...], int | None, dict[str, float]]
"""Captions, label and scores."""

_OTHER_BYTES = 1 << 20


def read_sidecars(sidecars: Iterable[tuple[str, Callable[[int], bytes]]], options: SourceOptions, where: str) -> Facts:
    """What the sidecars of one item say, each given by name and by what reads it up to a number of bytes.

    A caption in several of them counts once. Raises RefusedError, or DataError where `no_caption` is `error`.
    """
    most = 4 * options.max_caption + _OTHER_BYTES
    captions, scores, label = dict[str, None](), dict[str, float](), None
    for name, read in sorted(sidecars, key=lambda sidecar: (SIDECARS.index(suffix_of(sidecar[0])), sidecar[0])):
        data = read(most + 1)
        if len(data) > most:
            raise RefusedError(Reason.CAPTION_TOO_LONG, f"{shown(name)} has more than {most} bytes")
        try:
            text = decode(data, options.encoding)
            if suffix_of(name) == ".cls":
                label = whole(text.strip())
            elif suffix_of(name) == ".json":
                found, number, more = _json(text, options, bool(captions))
                captions |= dict.fromkeys(found)
                scores |= more
                label = number if label is None else label
            else:
                captions |= dict.fromkeys(clean_all(text.splitlines() if options.caption_lines else [text], options))
        except RefusedError as refused:
            raise RefusedError(refused.reason, f"{shown(name)}: {refused.detail}") from refused
    return settled(tuple(captions), label, options, where), label, scores


def _json(text: str, options: SourceOptions, captioned: bool) -> Facts:
    """What JSON says. Where there is a caption already, only fields that are surely captions add some."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise RefusedError(Reason.BAD_VALUE, f"{error.lineno}:{error.colno}: no JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise RefusedError(Reason.BAD_VALUE, f"no JSON that can be read ({error})") from error
    if isinstance(value, dict):
        columns = columns_of(tuple(value), options)
        captions, label, scores = texts_and_numbers(value, columns, options)
        return () if captioned and columns.vague else captions, label, scores
    return clean_all([value], options), None, {}
