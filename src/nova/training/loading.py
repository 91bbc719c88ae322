"""Batches made ahead of the training loop by worker processes: in order, and whatever happens to a worker.

A batch is a pure function of its key, so it does not matter who makes it, how often, or how many were made that
nobody took. Each worker has a pipe and a thread of its own here, so that no worker can stop another or the loop.
(torch's `DataLoader` shares one pipe and one lock among workers: with one of them killed while it sends, the loop
waits for ever, whatever its timeout; and its SIGCHLD handler raises wherever the training step happens to be.)
"""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import signal
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import util
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import multiprocessing  # its pipes carry tensors in shared memory

from nova.errors import DataError, NovaError, ResourceError
from nova.training.signals import STOPPING

Key = TypeVar("Key")
Batch = TypeVar("Batch")

_AHEAD = 2  # batches a worker is given before the first of them is taken
_ATTEMPTS = 3
_GRACE = 1.0  # seconds a worker has to end when it is no longer needed
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def batches(
    make: Callable[[Key], Batch],
    keys: Iterable[Key],
    workers: int,
    timeout: float,
    describe: Callable[[Key], str],
) -> Generator[Batch, None, None]:
    """The batches of `keys`, in their order, made by `workers` processes, or by this one where there are none.

    `make` must depend on its key alone: not on global random state, nor on the number of threads, of which workers
    have one. On Linux workers are forks, so `make` may be a closure; it must not touch a GPU. They ignore signals
    that stop a run, since this process decides, and die with the thread that iterates.

    A worker that dies, raises, or makes nothing for `timeout` seconds while its batch is awaited is replaced, with a
    warning, up to twice for one batch. A NovaError of `make` is raised at once, except a ResourceError, which may
    pass. Without workers nothing is tried again and every error is raised as it is.

    Raises:
        DataError: making a batch failed three times; names `describe(key)` and what happened to the worker.
    """
    if workers == 0:
        yield from map(make, keys)
        return
    coming = enumerate(keys)
    waiting: deque[tuple[int, Key]] = deque()  # what workers were given and has not been delivered
    attempts = 0
    with _workers(make, workers) as pool:

        def hand_out() -> None:
            for place, key in islice(coming, _AHEAD * workers - len(waiting)):
                waiting.append((place, key))
                pool[place % workers].give(key)

        hand_out()
        while waiting:
            place, key = waiting[0]
            slot = place % workers
            outcome = pool[slot].take(timeout)
            if isinstance(outcome, _Fault):
                attempts += 1
                _judge(outcome, attempts, describe(key))
                pool[slot].kill()
                pool[slot] = _Worker(make)
                for later, again in waiting:
                    if later % workers == slot:
                        pool[slot].give(again)
            else:
                waiting.popleft()
                attempts = 0
                hand_out()
                yield outcome


@dataclass(frozen=True)
class _Fault:
    """What a worker did instead of making a batch; `error` is the NovaError it raised, if it was one."""

    what: str
    error: NovaError | None = None
    trace: str = ""


def _judge(fault: _Fault, attempts: int, name: str) -> None:
    """Raise what ends the run, or warn of what is tried again."""
    last = attempts == _ATTEMPTS
    if fault.error is not None and (last or not isinstance(fault.error, ResourceError)):
        raise fault.error
    line = f"{name}: a loader worker {fault.what}"
    if last:
        raise DataError(
            f"{line}, {attempts} times; repair or remove these samples, or load without workers to see the fault"
        ) from (RuntimeError(fault.trace) if fault.trace else None)
    warnings.warn(f"{line}; trying again", RuntimeWarning, stacklevel=3)


class _Worker:
    """A process that makes a batch of each key it is given, one after the other, and a thread that talks with it."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, make, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self._keys: queue.SimpleQueue[tuple[Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        Thread(target=_converse, args=(pipe, self._keys, self._results), daemon=True).start()

    def give(self, key: Any) -> None:
        """Ask for the batch of `key`, after those asked for before."""
        self._keys.put((key,))

    def take(self, timeout: float) -> Any:
        """The next batch, or a fault in its place."""
        try:
            outcome = self._results.get(timeout=timeout)
        except queue.Empty:
            return _Fault(f"made nothing for {timeout:g} s (storage that hangs?)")
        if isinstance(outcome, _Lost):
            self.process.join(_GRACE)
            return _Fault(_end_of(self.process.exitcode) or f"sent what cannot be read ({outcome.error})")
        return outcome

    def dismiss(self) -> None:
        """Ask the process to end after the batch it is making."""
        with suppress(queue.Empty):
            while True:
                self._keys.get_nowait()
        self._keys.put(None)

    def kill(self) -> None:
        """End process and thread now."""
        self.process.kill()
        self._keys.put(None)
        self.process.join(_GRACE)


@dataclass(frozen=True)
class _Lost:
    """The end of a pipe: nothing more will come."""

    error: Exception


@contextmanager
def _workers(make: Callable[[Any], Any], count: int) -> Iterator[list[_Worker]]:
    """Workers in a list whose entries may be replaced; all are gone afterwards."""
    util.get_temp_dir()  # where workers put their sockets: made by this process, it is removed also if they are killed
    pool = [_Worker(make) for _ in range(count)]

    def kill() -> None:
        for worker in pool:
            worker.kill()

    # At an exit that skips the `finally`, multiprocessing would ask workers to end by a signal they ignore, and wait.
    atexit.register(kill)
    try:
        yield pool
    finally:
        for worker in pool:
            worker.dismiss()
        deadline = time.monotonic() + _GRACE
        for worker in pool:
            worker.process.join(max(0.0, deadline - time.monotonic()))
        kill()
        atexit.unregister(kill)


def _converse(pipe: Connection, keys: queue.SimpleQueue[tuple[Any] | None], results: queue.SimpleQueue[Any]) -> None:
    """Give the process at the other end of `pipe` one key at a time, and put what it makes into `results`.

    It gets the next key only when its last batch is here: tensors come from a living process, and the batch that is
    missing when it dies is the one that it died of.
    """
    try:
        while (key := keys.get()) is not None:
            pipe.send(key)
            results.put(pipe.recv())
        pipe.send(None)
    except Exception as error:  # the end of the pipe, half a message, or a tensor that died with its process
        results.put(_Lost(error))


def _work(pipe: Connection, make: Callable[[Any], Any], parent: int) -> None:
    """The life of a worker process."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be asked to tell
            return
    torch.set_num_threads(1)
    while (message := pipe.recv()) is not None:
        try:
            pipe.send(make(*message))
        except NovaError as error:
            pipe.send(_Fault("raised", error))
        except Exception as error:  # also where a batch cannot be sent, as when /dev/shm is full
            pipe.send(_Fault(f"raised {type(error).__name__}: {error}", trace=traceback.format_exc()))


def _end_of(code: int | None) -> str:
    """How a process ended that left this exit code; nothing if it did not."""
    if code is None:
        return ""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
