"""Files and folders that are there whole or not at all, also after a power cut: written aside, flushed, renamed."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nova.errors import ResourceError, UsageError

_TOKEN = 8
"""Hexadecimal digits in the name of a draft."""


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A new file beside `path` to write to, moved onto `path` when the block ends well and removed when it does not.

    Keeps the suffix. The data are on the disk before the name is. Raises UsageError where `path` cannot be a
    file, ResourceError where the system refuses to write it; a previous file then stays as it was.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the path of a file to write")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist; create it or choose another")
    draft = path.parent / f"{_draft_stem(path)}{secrets.token_hex(_TOKEN // 2)}{path.suffix}"
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield draft
        _sync(draft)
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({reason(error)}); check permissions and free space") from error
    finally:
        draft.unlink(missing_ok=True)


def remove_drafts(path: Path) -> None:
    """Delete what killed writers left of `path`. For files with one writer at a time."""
    hexadecimal = "[0-9a-f]" * _TOKEN
    for draft in path.parent.glob(f"{glob.escape(_draft_stem(path))}{hexadecimal}{glob.escape(path.suffix)}"):
        draft.unlink(missing_ok=True)


def remove_all_drafts(paths: Iterable[Path]) -> None:
    """`remove_drafts` for many files: looks through each of their folders once."""
    by_folder: dict[Path, set[tuple[str, str]]] = defaultdict(set)
    for path in paths:
        by_folder[path.parent].add((_draft_stem(path), path.suffix))
    for folder, known in by_folder.items():
        for found in folder.glob(".*"):
            stem, token = found.stem[:-_TOKEN], found.stem[-_TOKEN:]
            if (stem, found.suffix) in known and set(token) <= set("0123456789abcdef"):
                found.unlink(missing_ok=True)


def replace_durably(path: Path, data: bytes) -> None:
    """Put `data` at `path`, which nobody else writes, in one step: whoever looks sees the old file or the new one."""
    remove_drafts(path)
    with written_whole(path) as draft:
        draft.write_bytes(data)


def write_durably(path: Path, data: bytes) -> None:
    """Write `data` to `path` in place and wait until the disk has it. For files inside a folder yet to be renamed."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, then put it at `target`, in place of what was there."""
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    for path in (*aside.rglob("*"), aside):
        _sync(path)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    sync_folder(target.parent)


def sync_file(file: Path) -> None:
    """Wait until the disk has what was written to `file`, by whomever."""
    _sync(file)


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows of names created, renamed or deleted in `folder`."""
    _sync(folder)


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """`value` as indented JSON, the same bytes for the same value."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def sealed_json(body: Mapping[str, Any]) -> bytes:
    """`body` as JSON that carries its own checksum, for `unsealed` to read."""
    return json_bytes({**body, "sha256": hashlib.sha256(json_bytes(body)).hexdigest()})


def unsealed(data: bytes) -> dict[str, Any]:
    """What `sealed_json` made `data` from. Raises ValueError unless every byte is as it was then."""
    sealed = json.loads(data)
    if not isinstance(sealed, dict):
        raise ValueError("not a JSON object")
    body = {key: value for key, value in sealed.items() if key != "sha256"}
    if data != sealed_json(body):  # a flipped space is a sign of damage too
        raise ValueError("its own checksum does not fit")
    return body


def reason(error: OSError) -> str:
    """What the system said, in words for the middle of a line."""
    return (error.strerror or str(error)).lower()


def _draft_stem(path: Path) -> str:
    return f".{path.stem[:100]}."


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
