"""Whoever makes the batches and whatever happens to them: the same batches in the same order, or one clear error.

The figure of row B9 (200 worker deaths, 0 hangs, 0 batches lost):
`python -m pytest -m slow tests/training/test_loading.py`.
"""

import ctypes
import faulthandler
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection

import pytest
import torch

from nova.errors import DataError, ResourceError
from nova.randomness import generator_for
from nova.training.loading import batches

HANGING, PATIENCE = 1000.0, 100.0
"""Seconds that something takes which must not be waited for, and that anything else may take."""


@dataclass(frozen=True)
class Drawn:
    """A batch that follows from its key; `pid` and `threads` tell who made it."""

    key: int
    numbers: torch.Tensor
    pid: int
    threads: int


def drawn(key):
    numbers = torch.randn(3, 5, generator=generator_for(0, key))
    return Drawn(key, numbers, os.getpid(), torch.get_num_threads())


def describe(key):
    return f"batch {key}"


def load(make, count, workers=2, timeout=20.0):
    return batches(make, range(count), workers, timeout, describe)


@pytest.fixture
def once(tmp_path):
    """True for the first process that asks, and never again."""

    def first() -> bool:
        try:
            os.close(os.open(tmp_path / "done", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    return first


def crash():
    """Die of a segmentation fault, without the report that pytest would print."""
    faulthandler.disable()
    ctypes.string_at(0)


def faults():
    """Ways in which a worker fails: name, what it does, and what is said of it."""
    return {
        "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), r"was killed by SIGKILL \(out of memory\?\)"),
        "segfault": (crash, "was killed by SIGSEGV"),
        "exit": (lambda: os._exit(3), "ended with exit code 3"),
        "raise": (lambda: [][1], "raised IndexError: list index out of range"),
    }


def test_any_number_of_workers_makes_the_same_batches():
    expected = [drawn(key) for key in range(9)]
    for workers in (0, 1, 2):
        found = list(load(drawn, 9, workers))
        assert [one.key for one in found] == list(range(9))
        assert all(torch.equal(one.numbers, other.numbers) for one, other in zip(expected, found, strict=True))
        assert len({one.pid for one in found}) == max(workers, 1)
        assert (os.getpid() in {one.pid for one in found}) == (workers == 0)
        assert workers == 0 or {one.threads for one in found} == {1}


def test_global_random_numbers_do_not_depend_on_workers():
    for workers in (0, 2):
        torch.manual_seed(0)
        assert len(list(load(drawn, 3, workers))) == 3
        assert float(torch.rand(())) == pytest.approx(0.49625658988952637, abs=1e-7)


def test_no_worker_is_left_when_a_reader_stops_early():
    found = batches(drawn, itertools.count(), 2, HANGING, describe)
    pids = {next(found).pid for _ in range(4)}
    assert len(pids) == 2
    start = time.monotonic()
    found.close()
    assert time.monotonic() - start < PATIENCE
    assert are_gone(pids)


@pytest.mark.parametrize("fault", ["killed", "segfault", "exit", "raise"])
def test_a_worker_that_fails_once_is_replaced_and_nothing_is_lost(once, fault):
    act, said = faults()[fault]

    def make(key):
        if key == 3 and once():
            act()
        return drawn(key)

    with pytest.warns(RuntimeWarning, match=f"batch 3: a loader worker {said}; trying again"):
        found = list(load(make, 8))
    assert [one.key for one in found] == list(range(8))
    assert all(torch.equal(one.numbers, drawn(one.key).numbers) for one in found)


@pytest.mark.parametrize("fault", ["killed", "raise"])
def test_a_batch_that_fails_always_is_named_after_those_before_it_are_delivered(fault):
    act, said = faults()[fault]

    def make(key):
        if key == 2:
            act()
        return drawn(key)

    found = load(make, 8)
    assert [next(found).key for _ in range(2)] == [0, 1]
    with (
        pytest.warns(RuntimeWarning) as told,
        pytest.raises(DataError, match=f"^batch 2: a loader worker {said}, 3 times; repair"),
    ):
        next(found)
    assert len(told) == 2


def test_the_trace_of_a_worker_is_the_cause_of_the_error():
    def make(key):
        return {}["missing"]

    with pytest.warns(RuntimeWarning), pytest.raises(DataError) as refusal:
        list(load(make, 1))
    assert 'return {}["missing"]' in str(refusal.value.__cause__)


def test_a_hanging_worker_is_replaced(once):
    def make(key):
        if key == 1 and once():
            time.sleep(HANGING)
        return drawn(key)

    start = time.monotonic()
    with pytest.warns(RuntimeWarning, match="batch 1: a loader worker made nothing for 1.5 s"):
        assert [one.key for one in load(make, 4, timeout=1.5)] == list(range(4))
    assert time.monotonic() - start < PATIENCE


def test_a_death_is_noticed_long_before_the_timeout(once):
    def make(key):
        if key == 0 and once():
            os._exit(1)
        return drawn(key)

    start = time.monotonic()
    with pytest.warns(RuntimeWarning):
        assert len(list(load(make, 2, timeout=HANGING))) == 2
    assert time.monotonic() - start < PATIENCE


def test_a_worker_killed_while_it_sends_stops_nobody(once, monkeypatch):
    whole, parent = Connection._send, os.getpid()

    def half(self, data, write=os.write):
        if len(data) > 100_000 and os.getpid() != parent and once():
            os.write(self.fileno(), data[:5000])
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, data, write)

    monkeypatch.setattr(Connection, "_send", half)
    with pytest.warns(RuntimeWarning, match="was killed by SIGKILL"):
        found = list(load(lambda key: str(key) * 1_000_000, 4))
    assert found == [str(key) * 1_000_000 for key in range(4)]


def test_a_worker_that_hangs_with_the_interpreter_locked_is_replaced(once):
    def make(key):
        if key == 2 and once():
            ctypes.PyDLL(None).sleep(int(HANGING))  # no other thread of the worker runs
        return drawn(key)

    found = load(make, 6, timeout=1.5)
    keys = [next(found).key]
    time.sleep(0.3)  # what the workers sent meanwhile waits
    with pytest.warns(RuntimeWarning, match="made nothing"):
        keys += [batch.key for batch in found]
    assert keys == list(range(6))


def test_what_cannot_be_sent_is_said():
    with pytest.warns(RuntimeWarning), pytest.raises(DataError, match="batch 0: a loader worker raised .*pickle"):
        list(load(lambda key: lambda: key, 2))


def test_bad_samples_are_said_at_once_and_refusals_of_the_system_tried_again(once):
    def bad(key):
        raise DataError("a.parquet: row 3: damaged")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="^a.parquet: row 3: damaged$"):
            list(load(bad, 3))

    def busy(key):
        if key == 1 and once():
            raise ResourceError("a.parquet: cannot be read (input/output error)")
        return key

    with pytest.warns(RuntimeWarning, match="batch 1"):
        assert list(load(busy, 3)) == [0, 1, 2]

    def broken(key):
        raise ResourceError("a.parquet: cannot be read")

    with pytest.warns(RuntimeWarning), pytest.raises(ResourceError, match="^a.parquet: cannot be read$"):
        list(load(broken, 3))


def test_without_workers_errors_are_as_they_are():
    with pytest.raises(ZeroDivisionError):
        list(load(lambda key: 1 / key, 3, workers=0))


def test_workers_leave_signals_to_their_parent():
    found = batches(drawn, itertools.count(), 2, 20.0, describe)
    pids = {next(found).pid for _ in range(4)}
    for pid in pids:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert {next(found).pid for _ in range(12)} == pids
    found.close()


def test_a_worker_that_dies_while_the_loop_is_elsewhere_interrupts_nothing():
    found = batches(drawn, itertools.count(), 2, 20.0, describe)
    pid = next(found).pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:  # a training step, which a handler of SIGCHLD would break off
        time.sleep(0.01)
    with pytest.warns(RuntimeWarning, match="SIGKILL"):
        keys = [next(found).key for _ in range(10)]
    assert keys == list(range(1, 11))
    found.close()


def alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def are_gone(pids):
    """Whether processes end, which a loaded machine may take its time with."""
    deadline = time.monotonic() + PATIENCE
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, pids))


def in_a_child(run):
    """Fork; let the child `run` with a pipe to write to; its process id and the pipe to read from."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run(writing)
        finally:
            os._exit(1)
    os.close(writing)
    return child, reading


def test_workers_die_with_a_parent_that_is_killed():
    def run(pipe):
        found = batches(lambda key: time.sleep(HANGING) if key > 3 else drawn(key), itertools.count(), 2, 1e6, describe)
        pids = {next(found).pid for _ in range(4)}
        os.write(pipe, " ".join(map(str, pids)).encode())
        next(found)

    child, pipe = in_a_child(run)
    pids = [int(pid) for pid in os.read(pipe, 100).split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert are_gone(pids)


def test_an_exit_in_the_middle_of_a_run_does_not_wait(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import itertools, time\n"
        "from nova.training.loading import batches\n"
        "def make(key): return time.sleep(1000) if key == 4 else key\n"
        "found = batches(make, itertools.count(), 2, 1e6, str)\n"
        "print([next(found) for _ in range(2)], flush=True)\n"
        "raise SystemExit(7)\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (7, "[0, 1]\n"), ended.stderr


@pytest.mark.slow
def test_two_hundred_deaths_at_random_moments_lose_nothing():
    random.seed(0)
    deaths, wanted = 0, 0
    found = batches(drawn, itertools.count(), 2, 20.0, describe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while deaths < 200:
            for _ in range(random.randrange(1, 8)):
                batch = next(found)
                assert batch.key == wanted
                assert torch.equal(batch.numbers, drawn(wanted).numbers)
                wanted += 1
            time.sleep(random.random() / 100)
            if living := multiprocessing.active_children():
                random.choice(living).kill()
                deaths += 1
    found.close()
