"""A checkpoint is read back bit for bit or refused, and none is lost: not to damage, a full disk or a kill."""

import contextlib
import errno
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nova.errors import CheckpointError, ResourceError
from nova.training import checkpoint
from nova.training.state import TrainState
from tests.training.toy import everything, toy, toy_run

SAVER = """
import os, sys
from pathlib import Path
import torch
from nova.training import checkpoint, files
from tests.training.toy import toy, toy_run
from nova.training.state import TrainState

calls, last = 0, int(sys.argv[2])
def dying(name):
    function = getattr(os, name)
    def counted(*arguments, **options):
        global calls
        calls += 1
        if calls == last:
            os._exit(9)
        return function(*arguments, **options)
    return counted
state = TrainState.start(toy(seed=1), toy_run().optimizer)
state.step = 2
for name in ("fsync", "rename", "mkdir", "open", "rmdir", "unlink"):
    setattr(os, name, dying(name))
checkpoint.save(state, Path(sys.argv[1]), keep=2)
"""


def state_at(step: int) -> TrainState:
    state = TrainState.start(toy(seed=step), toy_run().optimizer)
    state.model(torch.arange(5)).square().sum().backward()
    state.optimizer.step()
    state.step = step
    return state


def same(found: checkpoint.Found, state: TrainState) -> bool:
    other = TrainState.start(toy(seed=99), toy_run().optimizer)
    other.load(found.tensors, found.counters)
    return everything(other) == everything(state)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with checkpoints of steps 1 and 2."""
    for step in (1, 2):
        checkpoint.save(state_at(step), tmp_path, keep=2)
    return tmp_path


def test_reading_is_the_inverse_of_saving(two):
    found = checkpoint.find(two)
    assert found is not None
    assert found.path == two / "step-2"
    assert not found.faults
    assert same(found, state_at(2))


def test_the_newest_are_kept(tmp_path):
    for step in (8, 9, 10, 11):
        checkpoint.save(state_at(step), tmp_path, keep=3)
    assert [step for step, _ in checkpoint.checkpoints(tmp_path)] == [9, 10, 11]


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.find(tmp_path) is None


def flips(folder: Path, count: int) -> int:
    """How many of `count` random single-bit flips in the files of a checkpoint are not refused."""
    files = sorted(folder.iterdir())
    chance = random.Random(0)
    silent = 0
    for _ in range(count):
        file = chance.choice(files)
        data = file.read_bytes()
        place = chance.randrange(len(data))
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :])
        with contextlib.suppress(CheckpointError):
            checkpoint.read(folder)
            silent += 1
        file.write_bytes(data)
    return silent


def test_every_flipped_bit_is_refused(two):
    assert flips(two / "step-2", 300) == 0
    checkpoint.read(two / "step-2")


@pytest.mark.slow
def test_three_thousand_flipped_bits_are_refused(two):
    assert flips(two / "step-2", 3000) == 0


def test_cut_missing_empty_and_strange_files_are_refused(two):
    for file in sorted((two / "step-2").iterdir()):
        data = file.read_bytes()
        for wrong in (b"", data[:1], data[: len(data) // 2], data[:-1], data + b"\0"):
            file.write_bytes(wrong)
            with pytest.raises(CheckpointError, match=file.name):
                checkpoint.read(two / "step-2")
        file.unlink()
        with pytest.raises(CheckpointError, match=f"{file.name}: missing"):
            checkpoint.read(two / "step-2")
        file.write_bytes(data)
    (two / "step-2" / "more.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"more.safetensors: not part"):
        checkpoint.read(two / "step-2")


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_named(two):
    (two / "step-2" / "ema.safetensors").write_bytes(b"")
    found = checkpoint.find(two)
    assert found is not None
    assert found.path == two / "step-1"
    assert "ema.safetensors: 0 bytes" in found.faults["step-2"]
    assert same(found, state_at(1))
    checkpoint.set_aside(two, found.faults)
    assert {path.name for path in two.iterdir()} == {"step-1", "damaged-step-2"}
    checkpoint.save(state_at(2), two, keep=2)
    assert checkpoint.find(two).path == two / "step-2"


def test_without_a_valid_checkpoint_each_fault_is_told(two):
    for step in (1, 2):
        (two / f"step-{step}" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"step-2/manifest.json: missing.*step-1/manifest.json: missing"):
        checkpoint.find(two)


def test_a_newer_format_is_refused(two, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.save(state_at(3), two, keep=3)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2, this version of nova reads 1"):
        checkpoint.read(two / "step-3")


def test_weights_that_are_no_numbers_are_not_saved(two):
    state = state_at(3)
    with torch.no_grad():
        state.model.inner.weight[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"weights: tensor 'inner.weight'"):
        checkpoint.save(state, two, keep=2)
    assert checkpoint.find(two).path == two / "step-2"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", range(5))
def test_a_disk_that_fails_loses_no_checkpoint(two, monkeypatch, code, call):
    calls = iter(range(100))
    write = checkpoint.write_durably

    def failing(path: Path, data: bytes) -> None:
        if next(calls) == call:
            raise OSError(code, "no more")
        write(path, data)

    monkeypatch.setattr(checkpoint, "write_durably", failing)
    with pytest.raises(ResourceError, match="step-3"):
        checkpoint.save(state_at(3), two, keep=2)
    assert sorted(path.name for path in two.iterdir()) == ["step-1", "step-2"]
    assert same(checkpoint.find(two), state_at(2))


def killed_at_each_call(folder: Path, calls: range) -> int:
    """Save step 2 after step 1 and die at the k-th system call; how many deaths left a valid checkpoint."""
    recovered = 0
    for call in calls:
        place = folder / str(call)
        checkpoint.save(state_at(1), place, keep=2)
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", SAVER, str(place), str(call)], cwd=root, check=False)
        if done.returncode == 0:
            break
        found = checkpoint.find(place)
        assert found is not None
        assert found.counters["step"] in (1, 2)
        checkpoint.set_aside(place, found.faults)
        checkpoint.save(state_at(3), place, keep=2)
        recovered += 1
    return recovered


def test_a_kill_inside_a_save_leaves_a_valid_checkpoint(tmp_path):
    assert killed_at_each_call(tmp_path, range(3, 5)) == 2


@pytest.mark.slow
def test_a_kill_at_any_call_of_a_save_leaves_a_valid_checkpoint(tmp_path):
    assert killed_at_each_call(tmp_path, range(1, 100)) > 10
