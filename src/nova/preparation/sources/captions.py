"""Captions of others -> clean text, or the reason why not. Never a guessed encoding, never the word "nan".

Clean is: NFC, without control characters and marks that turn text around, white space as single spaces.
"""

from __future__ import annotations

import codecs
import math
import unicodedata
from collections.abc import Iterable, Sequence

from nova.errors import DataError
from nova.preparation.items import Reason
from nova.preparation.sources.names import shown
from nova.preparation.sources.options import SourceOptions
from nova.preparation.sources.refused import RefusedError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte-order marks and what they stand for."""

_ABSENT = frozenset(("nan", "none", "null", "<na>", "n/a"))
_TURNING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # Unicode 16, UAX 9
_UNWANTED = {
    code: None
    for code in (*range(0x20), *range(0x7F, 0xA0), *_TURNING, 0xFEFF)
    if not chr(code).isspace()  # white space is joined later
}


def decode(data: bytes, encoding: str) -> str:
    """The text of a caption file: by its byte-order mark, else in `encoding`.

    Raises RefusedError with the offset of the first byte that is no text. A NUL is none: text with NULs is UTF-16 or
    UTF-32 without a mark, which would pass for UTF-8.
    """
    mark, encoding = next((pair for pair in MARKS if data.startswith(pair[0])), (b"", encoding))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        offset = error.start + len(mark)
        raise RefusedError(
            Reason.CAPTION_ENCODING, f"byte {offset} (0x{data[offset]:02x}) is not {encoding}"
        ) from error
    if "\0" in text:
        offset = len(mark) + len(text[: text.index("\0")].encode(encoding))
        raise RefusedError(Reason.CAPTION_ENCODING, f"byte {offset} is a NUL; no {encoding} text")
    return text


def is_absent(value: object) -> bool:
    """Whether `value` stands for nothing: None, NaN, an empty text, or a word for these that a program wrote."""
    if isinstance(value, str):
        return not value.strip() or value.strip().casefold() in _ABSENT
    return value is None or (isinstance(value, float) and math.isnan(value))


def clean(value: object, options: SourceOptions) -> str | None:
    """The caption that `value` is, None if it is absent or has nothing to see.

    Raises RefusedError if it is no text, not within the lengths allowed, or was decoded in spite of bad bytes.
    """
    if is_absent(value):
        return None
    if not isinstance(value, str):
        raise RefusedError(Reason.CAPTION_NOT_TEXT, f"expected a text, found {shown(value)}")
    if len(value) > options.max_caption:  # before work on it
        raise RefusedError(Reason.CAPTION_TOO_LONG, f"{len(value)} characters, allowed are {options.max_caption}")
    _check_characters(value, options.encoding)
    text = " ".join(unicodedata.normalize("NFC", value.translate(_UNWANTED)).split())
    if text and len(text) < options.min_caption:
        raise RefusedError(Reason.CAPTION_TOO_SHORT, f"{len(text)} characters, asked for are {options.min_caption}")
    return text or None


def clean_all(values: Iterable[object], options: SourceOptions) -> tuple[str, ...]:
    """The captions in `values`, which may be lists of captions, each once and in order. Raises as `clean` does."""
    found: dict[str, None] = {}
    for value in values:
        for each in value if isinstance(value, list | tuple) else (value,):
            caption = clean(each, options)
            if caption is not None:
                found[caption] = None
    return tuple(found)


def settled(captions: Sequence[str], label: int | None, options: SourceOptions, where: str) -> tuple[str, ...]:
    """`captions`, or what the user wants where there is none. Raises RefusedError or DataError as `no_caption` says."""
    if captions or label is not None:
        return tuple(captions)
    if options.no_caption == "empty":
        return ("",)
    if options.no_caption == "error":
        raise DataError(f"{where}: has no caption; add one, or have such items left out or given empty captions")
    raise RefusedError(Reason.NO_CAPTION, "no caption found")


def _check_characters(text: str, encoding: str) -> None:
    """Refuse what `surrogateescape` let through when a table was decoded, and lone surrogates from JSON."""
    if text.isascii():
        return
    at = next((index for index, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
    if at is None:
        return
    code = ord(text[at])
    if 0xDC80 <= code <= 0xDCFF:
        offset = len(text[:at].encode(encoding, "replace"))
        raise RefusedError(Reason.CAPTION_ENCODING, f"byte {offset} of it (0x{code - 0xDC00:02x}) is not {encoding}")
    raise RefusedError(Reason.CAPTION_ENCODING, f"character {at} of it is a lone surrogate (U+{code:04X})")
