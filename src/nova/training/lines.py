"""Files of JSON lines, each about a step: they go on where a checkpoint is, and a full disk does not stop a run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nova.files import reason, replace_durably


class StepLines:
    """Writes lines to `path`, from the one after `start` steps on; what a killed run wrote beyond is dropped.

    Lines that the disk does not take wait in memory for the next try; `say` is told of it, once.
    """

    def __init__(self, path: Path, start: int, say: Callable[[str], None]) -> None:
        drop_after(path, start)
        self._path = path
        self._say = say
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._waiting = b""
        self._told = False

    def write(self, step: int, facts: Mapping[str, Any]) -> None:
        """Add a line; numbers keep their last bit, and those that are none become null."""
        line = {"step": step, **{name: None if _is_no_number(value) else value for name, value in facts.items()}}
        self._waiting += json.dumps(line).encode() + b"\n"
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._file, self._waiting) :]
        except OSError as error:
            self._tell(error)

    def sync(self) -> None:
        """Wait until the disk has what was written."""
        try:
            os.fsync(self._file)
        except OSError as error:
            self._tell(error)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._say(f"{self._path}: cannot be written ({reason(error)}); training goes on, its lines wait for space")


def drop_after(path: Path, step: int) -> None:
    """Keep the lines of `path` up to `step`; a last line that was cut by a kill goes as well."""
    if not path.exists():
        return
    before = path.read_bytes()
    kept = b"".join(line for line in before.splitlines(keepends=True) if _step(line) <= step)
    if kept != before:
        replace_durably(path, kept)


def _step(line: bytes) -> float:
    if not line.endswith(b"\n"):
        return math.inf
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _is_no_number(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
