"""One writer per run folder; a holder that dies, however, holds no longer."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from nova.errors import ResourceError
from nova.lock import run_lock

HOLDER = """
import sys, time
from pathlib import Path
from nova.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ResourceError, match=f"host .*, process {holder.pid}, since "), run_lock(tmp_path):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with run_lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(ResourceError, match=r"cannot be locked \(no locks available\); .* -o flock"),
        run_lock(tmp_path),
    ):
        pass


def test_the_folder_is_free_after_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="inside"), run_lock(tmp_path / "new"):
        raise RuntimeError("inside")
    with run_lock(tmp_path / "new"):
        pass
