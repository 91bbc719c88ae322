"""One writer per folder: of a run, or of prepared data."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from nova.errors import ResourceError
from nova.files import reason

_NAME = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the system lets go of it when the process ends, however it ends.

    Raises ResourceError that names host, process and start of another holder, and where the folder knows no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ResourceError(
                f"{folder}: another run writes here ({_holder(file.read())}); wait for it or choose another --output"
            ) from None
        except OSError as error:
            raise ResourceError(
                f"{folder}: cannot be locked ({reason(error)}); choose a file system that has locks, "
                "or mount this one with them (Lustre: -o flock)"
            ) from error
        owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": datetime.now(UTC).isoformat("T", "seconds"),
        }
        file.truncate(0)
        file.write(json.dumps(owner))
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        owner = json.loads(text)
        return f"host {owner['host']}, process {owner['pid']}, since {owner['started']}"
    except (ValueError, KeyError, TypeError):
        return "which has only just started"
