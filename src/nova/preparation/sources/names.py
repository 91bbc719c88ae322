"""What names say: which files are media, sidecars or tables, which belong to nobody, and how a name is printed."""

from __future__ import annotations

import unicodedata
from pathlib import PurePath, PurePosixPath

VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi", ".mpg", ".mpeg", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp")
IMAGES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jxl"),
)
MEDIA = frozenset(VIDEOS + IMAGES)
TABLES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"))
ARCHIVE = ".tar"

_SYSTEM = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "$recycle.bin"))
_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".swp", ".lock", ".incomplete", "~")
_INVISIBLE = ("Cf", "Cc", "Zs", "Zl", "Zp")


def suffix_of(name: str) -> str:
    """The last suffix in lower case, with its dot."""
    return PurePosixPath(name).suffix.lower()


def belongs_to_nobody(name: str) -> bool:
    """Whether a file or folder of this name is the system's, hidden, half copied, or has a name nobody can see."""
    lower = name.lower()
    if lower in _SYSTEM or lower.startswith(".") or lower.endswith(_UNFINISHED):
        return True
    return all(unicodedata.category(character) in _INVISIBLE for character in PurePosixPath(name).stem)


def printable(text: str) -> str:
    """`text` in NFC, every character that does not print or that turns text around as an escape.

    Valid UTF-8 for any input, so that it can stand in files, on terminals and in pages.
    """
    if text.isascii() and text.isprintable():
        return text
    characters = unicodedata.normalize("NFC", text)
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in characters
    )


def shown(value: object, limit: int = 200) -> str:
    """`value` for the middle of a line: printable, and not too long."""
    text = str(value) if isinstance(value, str | PurePath) else repr(value)
    return f"'{printable(text[:limit])}{'…' if len(text) > limit else ''}'"
