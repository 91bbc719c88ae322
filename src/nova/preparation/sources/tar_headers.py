"""Where the members of an uncompressed tar lie, from its headers alone: nothing is unpacked, links are not followed.

Reads what POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU tar write. A header that lies ends the archive, since
nobody knows where the next one is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from nova.preparation.items import Reason
from nova.preparation.sources.names import shown
from nova.preparation.sources.refused import RefusedError

_BLOCK = 512
_LONGEST_NAME = 1 << 16  # bytes of an extended header; names have at most 4096
_KINDS = {
    **{b"1": "a hard link", b"2": "a symbolic link", b"3": "a character device", b"4": "a block device"},
    **{b"6": "a pipe", b"S": "a sparse file", b"M": "a part of a file of another volume"},
}
_FILES = (b"0", b"\0", b"7")
_FOLDER = b"5"
_EMPTY = (b"1", b"2", b"3", b"4", _FOLDER, b"6")


@dataclass(frozen=True)
class Member:
    """A regular file of `size` bytes at `offset`; or, with `refused`, one that is not to be read, and why."""

    name: str
    offset: int
    size: int
    refused: RefusedError | None = None


def members(file: BinaryIO) -> Iterator[Member]:
    """The members of the tar in `file` in order, without folders. Memory is that of one header.

    Raises RefusedError(BAD_ARCHIVE), after the members before it, where the archive is damaged or no tar.
    """
    total = os.fstat(file.fileno()).st_size
    offset, name, size, fault = 0, None, None, None
    while True:
        header = _header(file, offset, total)
        if header is None:
            return
        kind, start = header[156:157], offset + _BLOCK
        length = _number(header[124:136], offset)
        if kind in _FILES and size is not None:
            length = size
        if kind in _EMPTY:
            length = 0  # whatever it claims
        if length < 0 or start + length > total:
            raise RefusedError(Reason.BAD_ARCHIVE, f"the member at byte {offset} claims {length} bytes; cut or damaged")
        offset = start + -(-length // _BLOCK) * _BLOCK
        if kind in (b"L", b"x", b"K", b"g"):
            if length > _LONGEST_NAME:
                fault = RefusedError(Reason.BAD_ARCHIVE, f"its extended header has {length} bytes")
            elif kind == b"L":
                name = _read(file, start, length).rstrip(b"\0")
            elif kind == b"x":
                fields = _pax(_read(file, start, length), start)
                name = fields.get(b"path", name)
                size = int(digits) if (digits := fields.get(b"size", b"")[:20]).isdigit() else None
                if any(key.startswith(b"GNU.sparse") for key in fields):
                    fault = RefusedError(Reason.SPECIAL_MEMBER, f"is {_KINDS[b'S']}")
            continue
        text = (_short_name(header) if name is None else name).decode("utf-8", "surrogateescape")
        if kind in _FILES and not text.endswith("/"):
            yield Member(text, start, length, fault or _unsafe(text))
        elif kind != _FOLDER and kind not in _FILES:
            what = _KINDS.get(kind, f"of the unknown kind {shown(kind.decode('latin-1'))}")
            yield Member(text, start, length, fault or RefusedError(Reason.SPECIAL_MEMBER, f"is {what}"))
        name, size, fault = None, None, None


def _header(file: BinaryIO, offset: int, total: int) -> bytes | None:
    """The header block at `offset`; None at the end, which some writers leave out."""
    if offset >= total:
        return None
    header = _read(file, offset, _BLOCK)
    if header == bytes(_BLOCK):
        return None
    if len(header) < _BLOCK:
        raise RefusedError(Reason.BAD_ARCHIVE, f"ends within the header at byte {offset}")
    field = header[148:156]
    actual = sum(header) - sum(field) + 8 * ord(" ")
    if _octal(field) != actual:
        what = (
            "compressed? unpack it with gunzip or the like" if header.startswith(b"\x1f\x8b") else "damaged, or no tar"
        )
        raise RefusedError(Reason.BAD_ARCHIVE, f"the header at byte {offset} has a wrong checksum; {what}")
    return header


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _number(field: bytes, offset: int) -> int:
    """A size: octal digits, or a binary number with the first bit set, as GNU writes what is 8 GiB or more."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1  # 0xff starts a negative one
    size = _octal(field)
    if size is None:
        raise RefusedError(Reason.BAD_ARCHIVE, f"the header at byte {offset} has no size")
    return size


def _octal(field: bytes) -> int | None:
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return None


def _short_name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _pax(data: bytes, offset: int) -> dict[bytes, bytes]:
    """The fields of a pax header: records of the form `length key=value` and a newline."""
    fields = {}
    while data.strip(b"\0"):
        digits, _, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, separator, value = data[len(digits) + 1 : length].partition(b"=")
        if not separator or value[-1:] != b"\n" or length > len(data):
            raise RefusedError(Reason.BAD_ARCHIVE, f"the extended header at byte {offset} is malformed")
        fields[key] = value[:-1]
        data = data[length:]
    return fields


def _unsafe(name: str) -> RefusedError | None:
    """Why a member's name is not to be trusted, though nothing is ever written under it."""
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
        return RefusedError(Reason.OUTSIDE_ROOT, f"{shown(name)} would lead out of a folder that it is unpacked in")
    return None
