"""Paths that others wrote -> files under a root, or the reason why not. Nothing is fetched, and nothing leads out."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nova.files import reason
from nova.preparation.items import FileMedia, Reason
from nova.preparation.sources.names import MEDIA, VIDEOS, printable, shown
from nova.preparation.sources.refused import RefusedError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(data|file|concat|subfile|crypto|pipe|cache):", re.IGNORECASE)
_UNSAID = (*VIDEOS[:4], ".jpg", ".jpeg", ".png", ".webp")  # suffixes tried where a table gives none
_LONGEST = 4096
_FOLDERS = 4
_MOST_NAMES = 20_000


@dataclass(frozen=True)
class Place:
    """Where a source's files are.

    base: ids are relative to it.  start: paths in tables are.  roots: real folders, one of which holds every file.
    Remembers the last few folders that were looked into, since rows of a table tend to name files side by side.
    """

    base: Path
    start: Path
    roots: tuple[Path, ...]
    _real: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _spellings: dict[Path, dict[str, str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def of(base: Path, *roots: Path) -> Place:
        """All in the folder `base`, with links that may also lead into other `roots`."""
        base = Path(os.path.abspath(base))
        return Place(base, base, tuple(Path(os.path.realpath(root)) for root in (base, *roots)))

    def holds(self, real: str) -> bool:
        """Whether a path without links is in a root."""
        return any(_within(real, root) is not None for root in self.roots)

    def id_of(self, path: Path) -> str:
        """`path` relative to the base in POSIX form, printable. Two spellings of one Unicode name have one id."""
        text = path.as_posix()
        for folder in (self.base, *self.roots):
            inner = _within(text, folder)
            if inner is not None:
                return printable(inner or ".")
        return printable(text)

    def real(self, path: Path) -> str:
        """`path` without links. Raises OSError if it leads nowhere."""
        folder, name = os.path.split(path)
        if folder not in self._real:
            _make_room(self._real)
            self._real[folder] = os.path.realpath(folder, strict=True)
        real = os.path.join(self._real[folder], name)
        return os.path.realpath(real, strict=True) if os.path.islink(real) else real

    def other_spelling(self, path: Path) -> str | None:
        """The name on the disk of the first part of `path` that is there in another case or Unicode form only."""
        if not path.is_relative_to(self.start):
            return None
        folder = self.start
        for part in path.relative_to(self.start).parts:
            if not os.path.lexists(folder / part):
                return self._names(folder).get(_folded(part))
            folder = folder / part
        return None

    def _names(self, folder: Path) -> dict[str, str]:
        if folder not in self._spellings:
            _make_room(self._spellings)
            self._spellings[folder] = _spellings(folder)
        return self._spellings[folder]


def find(name: object, place: Place) -> FileMedia:
    """The regular file that a table calls `name`: relative to `place.start`, or absolute and inside.

    Symbolic links count as what they lead to. A name without suffix may leave out a usual one. Raises RefusedError.
    """
    path = _path(name, place)
    try:
        return stamped(path, place)
    except RefusedError as refused:
        if refused.reason is not Reason.MISSING:
            raise
        for suffix in _UNSAID if path.suffix.lower() not in MEDIA else ():
            guess = path.with_name(path.name + suffix)
            if guess.is_file():
                return stamped(guess, place)
        other = place.other_spelling(path)
        if other is None:
            raise
        detail = f"{shown(name)} is spelt {other!a} in its folder"
        raise RefusedError(Reason.OTHER_SPELLING, detail) from refused


def stamped(path: Path, place: Place) -> FileMedia:
    """The regular file at `path` with its size and time of change. Raises RefusedError if it is none or leads out."""
    try:
        real = place.real(path)
        status = os.lstat(real)
    except OSError as error:
        raise _refused(error, path) from error
    if not place.holds(real):
        raise RefusedError(Reason.OUTSIDE_ROOT, f"{shown(path)} is a link that leads out of {shown(place.base)}")
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        raise RefusedError(Reason.NOT_MEDIA, f"{shown(path)} is {kind}")
    return FileMedia(path, stamp_of(status))


def stamp_of(status: os.stat_result) -> str:
    """What names a file's content as cheaply as the file system can."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _path(name: object, place: Place) -> Path:
    if not isinstance(name, str) or not name.strip():
        found = "nothing" if name is None or name == "" else shown(name)
        raise RefusedError(Reason.BAD_PATH, f"expected a path, found {found}")
    if _URL.match(name):
        raise RefusedError(Reason.URL, f"{shown(name)} is a URL; download the media first and give their paths")
    if "\0" in name or len(name) > _LONGEST or not _encodes(name):
        raise RefusedError(
            Reason.BAD_PATH, f"{shown(name)} holds a NUL, a lone surrogate, or more than {_LONGEST} letters"
        )
    path = os.path.join(place.start, name)
    if ".." in name.split("/") or not (_within(path, place.base) is not None or place.holds(path)):
        raise RefusedError(Reason.OUTSIDE_ROOT, f"{shown(name)} leads out of {shown(place.base)} or holds '..'")
    return Path(path)


def _within(path: str, folder: Path) -> str | None:
    """What follows `folder` in `path`; None if it is not in it."""
    start = os.fspath(folder)
    if path == start:
        return ""
    start = start.rstrip("/") + "/"
    return path[len(start) :] if path.startswith(start) else None


def _make_room(memory: dict[Any, Any]) -> None:
    if len(memory) >= _FOLDERS:
        memory.clear()


def _encodes(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _refused(error: OSError, path: Path) -> RefusedError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return RefusedError(Reason.MISSING, f"{shown(path)} is not there")
    if error.errno == errno.ENAMETOOLONG:
        return RefusedError(Reason.BAD_PATH, f"{shown(path)} is longer than the file system allows")
    return RefusedError(Reason.UNREADABLE, f"{shown(path)}: {reason(error)}")


def _spellings(folder: Path) -> dict[str, str]:
    """The names in a folder by their folded form; none of a folder so large that a hint is not worth its memory."""
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    return {_folded(name): name for name in names} if len(names) <= _MOST_NAMES else {}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
