"""Files that are there whole or not at all, also after a power cut: written aside, flushed to disk, renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def write_durably(path: Path, data: bytes) -> None:
    """Write `data` to `path` in place and wait until the disk has it. For files inside a folder yet to be renamed."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: whoever looks sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.tmp")
    write_durably(aside, data)
    aside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows of names created, renamed or deleted in `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """`value` as indented JSON, the same bytes for the same value."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def publish_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, then put it at `target`, in place of what was there."""
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    for file in aside.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    sync_folder(target.parent)
