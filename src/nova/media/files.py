"""Files of others, handled with care: opened only if they are regular, and named for what they hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nova.errors import DataError
from nova.files import reason

_HEAD = 64

_BEGINNINGS = (
    (b"ffconcat", "an ffconcat playlist"),
    (b"#EXTM3U", "an M3U playlist"),
    (b"<?xml", "an XML document"),
    (b"<svg", "an SVG drawing"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"8BPS", "a Photoshop document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"RIFF", "an AVI, WAV or WebP file"),
)


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """The regular file at `path`, open for reading. Raises DataError for anything else: folders, pipes, devices."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({reason(error)}); give the path of a readable file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path}: is not a regular file; give the path of a file, not of a folder, pipe or device")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def contents(file: BinaryIO) -> str:
    """What the first bytes of an open file look like, in words for an error message; leaves the file at its start."""
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    if not head:
        return "an empty file"
    for beginning, name in _BEGINNINGS:
        if head.removeprefix(b"\xef\xbb\xbf").startswith(beginning):
            return name
    if head[4:8] == b"ftyp":
        return "an MP4 video or AVIF image"
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        text = ""
    return (
        f"text ({text[:24]!r})" if text and text.isprintable() | text.isascii() and "\0" not in text else "other data"
    )
