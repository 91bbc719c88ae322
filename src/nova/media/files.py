"""Files of others, handled with care: opened only if they are regular, and named for what they hold."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from nova.files import reason
from nova.media.faults import Fault, MediaError

Kind = Literal["image", "video"]

EMPTY, HEIC = "an empty file", "a HEIC image"
"""What `contents` says of a file without bytes, and of photographs as some telephones store them."""

_HEAD = 64

_HEADERS = 1 << 18
_CLAIMS = re.compile(rb"stsd.{12}([\w ]{4})|(V_[A-Z0-9_/]{2,30})|vids(\w{4})", re.DOTALL)

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

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_STILL_BRANDS = (b"avif", b"avis", *_HEIC_BRANDS)
_VIDEOS = (b"\x1aE\xdf\xa3", b"RIFF", b"FLV\1", b"OggS", b"\0\0\1\xba", b"\0\0\1\xb3", b"YUV4MPEG2")
_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # of QuickTime files older than `ftyp`


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """The regular file at `path`, open for reading. Raises DataError for anything else: folders, pipes, devices."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        fault = Fault.MISSING if isinstance(error, FileNotFoundError) else Fault.UNREADABLE
        message = f"{path}: cannot be opened ({reason(error)}); give the path of a readable file"
        raise MediaError(message, fault) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        message = f"{path}: is not a regular file; give the path of a file, not of a folder, pipe or device"
        raise MediaError(message, Fault.UNREADABLE)
    with os.fdopen(descriptor, "rb") as file:
        yield file


class Section(io.RawIOBase):
    """`size` bytes of an open file from `offset` on, as a file of its own, such as a member of an uncompressed tar."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._place = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._offset + self._place)
        data = self._file.read(max(0, min(len(buffer), self._size - self._place)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def kind(file: BinaryIO) -> Kind | None:
    """Whether an open file begins as an image or as a video, whatever its name; leaves the file at its start."""
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "image"
    if head[4:8] == b"ftyp":
        return "image" if head[8:12] in _STILL_BRANDS else "video"
    if head.startswith(_VIDEOS) or head[4:8] in _ATOMS or (head[:1] == b"G" and len(head) == _HEAD):
        return "video"
    return None


def claimed_codecs(file: BinaryIO) -> str:
    """The codecs that the headers of an MP4, Matroska or AVI file name, for a message: no decoder, no other name."""
    file.seek(0, io.SEEK_END)
    size = file.tell()
    found: dict[str, None] = {}
    for start in (0, max(0, size - _HEADERS)):
        file.seek(start)
        found |= {next(filter(None, match)).decode(): None for match in _CLAIMS.findall(file.read(_HEADERS))}
    return ", ".join(found) or "unknown"


def contents(file: BinaryIO) -> str:
    """What the first bytes of an open file look like, in words for an error message; leaves the file at its start."""
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    if not head:
        return EMPTY
    for beginning, name in _BEGINNINGS:
        if head.removeprefix(b"\xef\xbb\xbf").startswith(beginning):
            return name
    if head[4:8] == b"ftyp":
        return HEIC if head[8:12] in _HEIC_BRANDS else "an MP4 video or AVIF image"
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        text = ""
    return (
        f"text ({text[:24]!r})" if text and text.isprintable() | text.isascii() and "\0" not in text else "other data"
    )
