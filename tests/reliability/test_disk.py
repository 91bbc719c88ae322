"""A full disk loses no checkpoint, and is told of: before the run starts where that can be known. Row A7.

The long run: python -m pytest tests/reliability/test_disk.py -m slow -s
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import resource
import shutil
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from nova.errors import NovaError, ResourceError
from nova.training import checkpoint
from nova.training.cluster import Cluster
from nova.training.train import train
from tests.reliability.strike import lived
from tests.reliability.syscalls import BEFORE, KEEP, NEW, contents, needs_strace, restored, state_at, traced
from tests.training.toy import everything, metrics, toy, toy_run, toy_task

ROOT = Path(__file__).parents[2]
SIZE = sum(tensor.numel() * tensor.element_size() for tensor in state_at(1).tensors().values())
FULL = re.compile(
    rf"ResourceError: .*step-{NEW}: disk full, the checkpoint needs {SIZE} bytes and \d+ are free; make room"
)


def without_space(folder: Path, place: int, call: str) -> str:
    """Save where the `place`-th of all calls of a kind finds no space; the error told. No checkpoint may be lost."""
    fate, _ = traced(folder, f"{call}:error=ENOSPC:when={place}")
    assert fate.code == 0
    assert fate.told is not None
    kept = [path for _, path in checkpoint.checkpoints(folder) if checkpoint.fault(path, Cluster()) is None]
    assert len(kept) >= KEEP
    found, faults = restored(folder)
    assert faults == {}
    assert found in (contents(BEFORE[-1]), contents(NEW))
    assert not list(folder.glob(".incomplete-*"))
    checkpoint.save(state_at(NEW + 1), folder, KEEP, Cluster())
    assert restored(folder) == (contents(NEW + 1), {})
    return fate.told.get("error", "")


@needs_strace
def test_no_space_for_a_tensor_file_or_for_its_name(tmp_path):
    for call in ("write", "rename"):
        assert FULL.match(without_space(tmp_path / call, 1, call))


@needs_strace
@pytest.mark.slow
def test_no_space_at_every_call(tmp_path):
    _, calls = traced(tmp_path / "saved")
    found = [
        (call, without_space(tmp_path / str(number), call.number, call.name))
        for number, call in enumerate(calls)
        if call.name in ("openat", "write", "fsync", "mkdir", "rename")
    ]
    assert all(FULL.match(error) for _, error in found)
    writes = sum(call.name == "write" for call, _ in found)
    print(f"\nA7: no space at each of {len(found)} calls of a save ({writes} writes): 0 checkpoints lost, all told")


def limited(folder: Path, pipe: Connection) -> None:
    """Save twice, then where no file may grow beyond what the counters need."""
    for step in BEFORE:
        checkpoint.save(state_at(step), folder, KEEP, Cluster())
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
    try:
        checkpoint.save(state_at(NEW), folder, KEEP, Cluster())
    except NovaError as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"})


def test_a_file_that_may_not_grow(tmp_path):
    folder = tmp_path / "checkpoints"
    fate = lived(limited, folder)
    assert fate.told is not None
    assert re.match(rf"ResourceError: .*step-{NEW}: cannot be written \(file too large\)", fate.told["error"])
    assert restored(folder) == (contents(BEFORE[-1]), {})


def test_a_run_that_will_not_fit_is_refused_before_its_first_step(tmp_path, monkeypatch):
    def disk_with(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10 * free, 9 * free, free))

    config = toy_run()
    needed = SIZE * (config.keep_checkpoints + 1)
    disk_with(needed - 1)
    with pytest.raises(ResourceError, match=rf"take {needed} bytes more \(3 of {SIZE}\), {needed - 1} are free"):
        train(toy_task(toy()), config, tmp_path, quiet=True)
    assert list(tmp_path.iterdir()) == []
    disk_with(needed)
    train(toy_task(toy()), config, tmp_path, quiet=True)
    disk_with(0)
    assert train(toy_task(toy()), config, tmp_path, quiet=True).state.step == config.steps  # nothing left to be saved


def fill_up(folder: Path) -> None:
    """On a small disk of its own, let a run meet the disk's end, then go on once there is room. Prints the error."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)], check=True)
    run, filler, config, task = folder / "run", folder / "filler", toy_run(), toy_task(toy())
    run.mkdir()

    def batch(step: int, places: range) -> object:
        if step == 6:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
        return task.batch(step, places)

    try:
        train(dataclasses.replace(task, batch=batch), config, run, quiet=True)
    except ResourceError as error:
        print(f"ResourceError: {error}")
    filler.unlink()
    whole = folder / "whole"
    whole.mkdir()
    expected = everything(train(toy_task(toy()), config, whole, quiet=True).state)
    assert everything(train(toy_task(toy(seed=1)), config, run, quiet=True).state) == expected
    assert metrics(run) == metrics(whole)
    print("went on")


@pytest.mark.slow
def test_a_disk_that_fills_up_in_a_run(tmp_path):
    program = "import sys, pathlib; from tests.reliability.test_disk import fill_up; fill_up(pathlib.Path(sys.argv[1]))"
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no disk of one's own here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    error, last = done.stdout.splitlines()
    assert re.match(rf"ResourceError: .*step-8: disk full, the checkpoint needs {SIZE} bytes and \d+ are free", error)
    assert last == "went on"
    print(f"\nA7: {error}")
