"""A save of a checkpoint as the system sees it: its calls, one by one, with a kill or an error put in at any of them,
and the disks that a power cut after any of them could leave.

strace does the watching and the tampering, so the code under test knows nothing of it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from nova.errors import NovaError
from nova.training import checkpoint
from nova.training.cluster import Cluster
from nova.training.state import TrainState
from tests.reliability.strike import Fate, finish, process
from tests.training.toy import everything, toy, toy_run

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")

CHANGING = ("openat", "write", "fsync", "fdatasync", "mkdir", "rename", "unlinkat", "unlink", "rmdir", "ftruncate")
"""Calls that change files or make changes last."""
KEEP, BEFORE, NEW = 2, (1, 2), 3
"""Checkpoints kept, those there are before the save, and the one it writes; it deletes the first."""


@dataclass(frozen=True)
class Call:
    """The `number`-th call of its `name` in the process, from 1, on `path`; `target` is a rename's."""

    name: str
    number: int
    path: Path
    target: Path | None = None
    written: int = 0


def state_at(step: int) -> TrainState:
    """A state whose every tensor follows from `step`."""
    state = TrainState.start(toy(seed=step), toy_run().optimizer)
    for tensor in state.tensors().values():
        tensor.copy_(torch.randn(tensor.shape))
    state.step = step
    return state


def contents(step: int) -> dict:
    """All of that state, comparable bit for bit."""
    return everything(state_at(step))


def restored(folder: Path) -> tuple[dict, dict[str, str]]:
    """What a new process would go on with, and the faults it would find."""
    state = TrainState.start(toy(seed=99), toy_run().optimizer)
    faults = checkpoint.restore(state, folder, Cluster())
    return everything(state), faults


def saving(folder: Path, pipe: Connection) -> None:
    """Save the states before; then, when told to, the new one. Tells {} or the error."""
    torch.set_num_threads(1)
    for step in BEFORE:
        checkpoint.save(state_at(step), folder, KEEP, Cluster())
    new = state_at(NEW)
    pipe.send("ready")
    pipe.recv()
    try:
        checkpoint.save(new, folder, KEEP, Cluster())
    except NovaError as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"})
    else:
        pipe.send({})


def traced(folder: Path, inject: str | None = None) -> tuple[Fate, list[Call]]:
    """Let a process save in `folder` under strace, which tampers as `inject` says.

    Returns what became of it, and its calls in the folder during the last save.
    """
    assert STRACE is not None
    log, fate = folder.with_suffix(".strace"), Fate()
    with process(saving, folder) as (one, pipe):
        fate.hear(pipe)
        options = ["-f", "-y", "-s", "0", "-e", f"trace={','.join(CHANGING)}"]
        if inject is not None:
            options += ["-e", f"inject={inject}"]
        command = [STRACE, *options, "-o", str(log), "-p", str(one.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watcher:
            line = watcher.stderr.readline()
            if "attached" not in line:
                pytest.skip(f"strace may not watch here: {line.strip()}")
            pipe.send("go")
            finish(one, pipe, fate)
    return fate, [call for call in calls(log.read_text()) if folder in (call.path, *call.path.parents)]


_LINE = re.compile(r"^(?:\d+ +)?(?P<name>\w+)\((?P<rest>.*)\) += (?P<result>-?\d+)", re.M)
_PATH = re.compile(r"<(/[^>]*)>|\"([^\"]+)\"")


def calls(log: str) -> list[Call]:
    """The calls of a log that did not fail, in their order; of those that open files, the ones that may create them."""
    counts: dict[str, int] = defaultdict(int)
    found = []
    for match in _LINE.finditer(log):
        name, rest, result = match["name"], match["rest"], int(match["result"])
        counts[name] += 1
        paths = [one or other for one, other in _PATH.findall(rest)]
        if result < 0 or not paths or (name == "openat" and "O_CREAT" not in rest):
            continue
        if name in ("openat", "unlinkat"):  # a folder, and what is named in it
            paths = [os.path.join(*paths)]
        target = Path(paths[1]) if name == "rename" else None
        found.append(Call(name, counts[name], Path(paths[0]), target, result if name == "write" else 0))
    return found


def is_durable(made: Sequence[Call], path: Path) -> bool:
    """Whether the disk has all that was written to `path` once the calls `made` are done."""
    last = max((place for place, call in enumerate(made) if call.path == path and call.name == "write"), default=-1)
    return any(call.path == path and call.name == "fsync" for call in made[last + 1 :])


def power_cut(made: Sequence[Call], before: Path, after: Path, folder: Path, disk: Path, chance: random.Random) -> None:
    """Build at `disk` what a power cut after the calls `made`, which began in `before`, may leave of `folder`.

    A file that was not flushed ends anywhere or in zeros; `after` has what it should hold. Of the names that were
    made, changed or removed since the last flush, the first few are kept, as file systems with a journal do.
    """
    shutil.copytree(before, disk)
    flushed = max((place + 1 for place, call in enumerate(made) if call.name == "fsync"), default=0)
    places: dict[Path, Path] = {}
    for call in made[: chance.randint(flushed, len(made))]:
        here = disk / call.path.relative_to(folder)
        match call.name:
            case "openat":
                here.touch()
                places[call.path] = here
            case "mkdir":
                here.mkdir()
            case "unlinkat" | "unlink" | "rmdir":
                here.rmdir() if here.is_dir() else here.unlink()
            case "rename":
                assert call.target is not None
                there = here.rename(disk / call.target.relative_to(folder))
                places = {path: there / place.name for path, place in places.items()}
    for path, place in places.items():
        data = (after / path.name).read_bytes()[: sum(call.written for call in made if call.path == path)]
        kept = len(data) if is_durable(made, path) else chance.randint(0, len(data))
        place.write_bytes(data[:kept] + bytes(chance.choice((0, len(data) - kept))))
