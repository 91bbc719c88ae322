"""A checkpoint is read back bit for bit or refused, and none is lost: not to damage, a full disk or a kill."""

import errno
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nova.errors import CheckpointError, ResourceError
from nova.training import checkpoint
from nova.training.cluster import Cluster
from nova.training.state import TrainState
from tests.training.toy import everything, toy, toy_run

ALONE = Cluster()
SAVER = """
import os, sys
from pathlib import Path
from nova.training import checkpoint
from nova.training.cluster import Cluster
from tests.training.test_checkpoint import state_at

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
state = state_at(2)
for name in ("fsync", "rename", "mkdir", "open", "rmdir", "unlink"):
    setattr(os, name, dying(name))
checkpoint.save(state, Path(sys.argv[1]), 2, Cluster())
"""


def state_at(step: int) -> TrainState:
    state = TrainState.start(toy(seed=step), toy_run().optimizer)
    state.model(torch.arange(5)).square().sum().backward()
    state.optimizer.step()
    state.step = step
    return state


def restored(folder: Path) -> tuple[dict, dict[str, str]]:
    """All of the state that the newest valid checkpoint gives, and the faults of newer ones."""
    state = TrainState.start(toy(seed=99), toy_run().optimizer)
    faults = checkpoint.restore(state, folder, ALONE)
    return everything(state), faults


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with checkpoints of steps 1 and 2."""
    for step in (1, 2):
        checkpoint.save(state_at(step), tmp_path, 2, ALONE)
    return tmp_path


def test_restoring_is_the_inverse_of_saving(two):
    assert restored(two) == (everything(state_at(2)), {})


def test_the_newest_are_kept(tmp_path):
    for step in (8, 9, 10, 11):
        checkpoint.save(state_at(step), tmp_path, 3, ALONE)
    assert [step for step, _ in checkpoint.checkpoints(tmp_path)] == [9, 10, 11]


def test_without_a_checkpoint_the_state_stays(tmp_path):
    fresh = TrainState.start(toy(seed=99), toy_run().optimizer)
    assert restored(tmp_path) == (everything(fresh), {})


def is_refused(path: Path) -> str | None:
    return checkpoint.fault(path, ALONE)


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
        silent += is_refused(folder) is None
        file.write_bytes(data)
    return silent


def test_every_flipped_bit_is_refused(two):
    assert flips(two / "step-2", 300) == 0
    assert is_refused(two / "step-2") is None


@pytest.mark.slow
def test_three_thousand_flipped_bits_are_refused(two):
    assert flips(two / "step-2", 3000) == 0


@pytest.mark.slow
def test_every_cut_of_every_file_is_refused(two):
    for file in sorted((two / "step-2").iterdir()):
        data = file.read_bytes()
        for length in range(len(data)):
            file.write_bytes(data[:length])
            assert is_refused(two / "step-2") is not None
        file.write_bytes(data)


def test_cut_missing_empty_and_strange_files_are_refused(two):
    for file in sorted((two / "step-2").iterdir()):
        data = file.read_bytes()
        for wrong in (b"", data[:1], data[: len(data) // 2], data[:-1], data + b"\0"):
            file.write_bytes(wrong)
            assert file.name in is_refused(two / "step-2")
        file.unlink()
        assert f"{file.name}: missing" in is_refused(two / "step-2")
        file.write_bytes(data)
    (two / "step-2" / "more.safetensors").write_bytes(b"")
    assert "more.safetensors: not part" in is_refused(two / "step-2")


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_named(two):
    file = sorted((two / "step-2").glob("*.safetensors"))[1]
    file.write_bytes(b"")
    found, faults = restored(two)
    assert found == everything(state_at(1))
    assert f"{file.name}: 0 bytes" in faults["step-2"]
    assert {path.name for path in two.iterdir()} == {"step-1", "damaged-step-2"}
    checkpoint.save(state_at(2), two, 2, ALONE)
    assert restored(two) == (everything(state_at(2)), {})


def test_what_a_killed_save_left_is_not_a_checkpoint(two):
    for number, left in enumerate((".incomplete-step-3", "step-3.tmp", "step-x")):
        (two / left).mkdir()
        (two / left / "counters.json").write_text(str(number))
    assert restored(two) == (everything(state_at(2)), {})
    assert not (two / ".incomplete-step-3").exists()


def test_without_a_valid_checkpoint_each_fault_is_told(two):
    for step in (1, 2):
        (two / f"step-{step}" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"step-2/manifest.json: missing.*step-1/manifest.json: missing"):
        restored(two)


def test_another_format_is_refused(two, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 9)
    checkpoint.save(state_at(3), two, 3, ALONE)
    monkeypatch.undo()
    assert "format 9, this version of nova reads 2" in is_refused(two / "step-3")


def test_a_checkpoint_of_another_model_is_refused_and_nothing_changes(two):
    model = toy(seed=99)
    model.more = torch.nn.Linear(2, 2)
    state = TrainState.start(model, toy_run().optimizer)
    before = everything(state)
    with pytest.raises(CheckpointError, match=re.escape("step-2: 8 tensors") + ".*'ema.more.bias' .missing"):
        checkpoint.restore(state, two, ALONE)
    assert everything(state) == before


def test_weights_that_are_no_numbers_are_not_saved(two):
    state = state_at(3)
    with torch.no_grad():
        state.model.inner.weight[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"tensor 'weights.inner.weight'"):
        checkpoint.save(state, two, 2, ALONE)
    assert restored(two) == (everything(state_at(2)), {})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("call", range(6))
def test_a_disk_that_fails_loses_no_checkpoint(two, monkeypatch, code, call):
    """Whichever of a save's flushes fails: of the counters, of a tensor file, of the manifest, of a folder."""
    calls, sync = iter(range(100)), os.fsync

    def failing(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(code, "no more")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(ResourceError, match="step-3"):
        checkpoint.save(state_at(3), two, 2, ALONE)
    monkeypatch.undo()
    assert restored(two)[0] in (everything(state_at(2)), everything(state_at(3)))


def killed_at_each_call(folder: Path, calls: range) -> int:
    """Save step 2 after step 1 and die at the k-th system call; how many deaths left a valid checkpoint."""
    recovered = 0
    for call in calls:
        place = folder / str(call)
        checkpoint.save(state_at(1), place, 2, ALONE)
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", SAVER, str(place), str(call)], cwd=root, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == 9
        assert restored(place)[0] in (everything(state_at(1)), everything(state_at(2)))
        checkpoint.save(state_at(3), place, 2, ALONE)
        recovered += 1
    return recovered


def test_a_kill_inside_a_save_leaves_a_valid_checkpoint(tmp_path):
    assert killed_at_each_call(tmp_path, range(4, 6)) == 2


@pytest.mark.slow
def test_a_kill_at_any_call_of_a_save_leaves_a_valid_checkpoint(tmp_path):
    assert killed_at_each_call(tmp_path, range(1, 100)) > 10
