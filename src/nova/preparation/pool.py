"""Worker processes that survive any file: they are given items, and what they make of them comes back in order.

Media are what others made, and decoders crash, hang and swell on some of them. A worker that dies, takes too long or
raises is replaced, and its item tried again; what fails every time is refused by name, and the others go on.

Each worker has a pipe of its own, so that none can stop another. This process reads ahead of the item whose turn it
is up to a limit in bytes; beyond it workers wait in their pipes, and so memory is bounded whoever is slow.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import cv2
import numpy as np

from nova.preparation.fates import path_of
from nova.preparation.items import Clip, FileMedia, Item, Reason, Refusal

Work = Callable[[Item], Iterable[Clip | Refusal]]
"""What a worker does with an item: everything it becomes, piece by piece."""
Ticket = TypeVar("Ticket")

_ATTEMPTS = 3
_AHEAD = 8  # items a worker, so that a slow one does not hold up the others
_GRACE = 1.0
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
_ELSEWHERE = FileMedia(Path(), "")
_NO_FRAMES = np.zeros((0, 0, 0, 3), np.uint8)
_STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Limits:
    """workers: processes.  seconds: a worker may be silent for so long.  memory: bytes that a worker may take beyond
    what it takes at its start.  ahead: bytes of frames that wait for their turn here.
    """

    workers: int = 1
    seconds: float = 30.0
    memory: int = 2 << 30
    ahead: int = 256 << 20


@dataclass(frozen=True)
class Piece(Generic[Ticket]):
    """Something an item became, with the ticket it was handed in with.

    `made` is None at an item's end, which always comes. A Refusal at the end, `final`, takes back all that the item
    became before: its worker could not finish it.
    """

    ticket: Ticket
    item: Item
    made: Clip | Refusal | None
    final: bool = False


def pooled(tickets: Iterable[tuple[Ticket, Item]], work: Work, limits: Limits) -> Generator[Piece[Ticket], None, None]:
    """What `work` makes of each item, in the order of the items and as soon as it is there.

    `work` must depend on its item alone. On Linux workers are forks and `work` may be a closure; they die with the
    thread that iterates. An item fails as a whole: whatever came of it before is taken back by its last piece.
    """
    coming = iter(tickets)
    team = _Team(work, limits)
    try:
        while True:
            team.fill(coming)
            if not team.waiting:
                return
            first = team.waiting[0]
            if first.made:
                yield Piece(first.ticket, first.item, team.pop(first))
            elif first.done:
                team.waiting.popleft()
                yield Piece(first.ticket, first.item, first.failure, final=True)
            else:
                team.listen(first)
    finally:
        team.kill()


@dataclass(eq=False)
class _Task(Generic[Ticket]):
    """An item on its way. `taken`: pieces that came of it so far; a second attempt makes these again."""

    ticket: Ticket
    item: Item
    made: deque[Clip | Refusal] = field(default_factory=deque)
    taken: int = 0
    attempts: int = 0
    done: bool = False
    failure: Refusal | None = None


class _Worker:
    """A process, the task it is at, and until when it must say something."""

    def __init__(self, work: Work, memory: int) -> None:
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_live, args=(theirs, work, memory, os.getpid()), daemon=True)
        with _one_thread():
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.task: _Task[Any] | None = None
        self.skip = 0
        self.deadline = 0.0

    def give(self, task: _Task[Any], seconds: float) -> None:
        """Begin with a task."""
        self.task, self.skip, self.deadline = task, task.taken, time.monotonic() + seconds
        with suppress(OSError):  # it is dead; that shows when it is listened to
            self.pipe.send(task.item)

    def kill(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.join(_GRACE)
        self.pipe.close()


class _Team:
    """The workers, and the items between being handed in and being done: `waiting`, in order.

    An item is with a worker, done, or among the `unassigned`. Every worker that is free is given one of these before
    any is listened to, so that the first item of all is always with a worker, or done.
    """

    def __init__(self, work: Work, limits: Limits) -> None:
        self._work = work
        self._limits = limits
        self._workers = [_Worker(work, limits.memory) for _ in range(limits.workers)]
        self._unassigned: deque[_Task[Any]] = deque()
        self._held = 0  # bytes of frames in `waiting`
        self.waiting: deque[_Task[Any]] = deque()

    def fill(self, coming: Iterator[tuple[Any, Item]]) -> None:
        """Take items in, and give them to the workers that are free."""
        while len(self.waiting) < _AHEAD * len(self._workers) and (ticket := next(coming, None)) is not None:
            self.waiting.append(_Task(*ticket))
            self._unassigned.append(self.waiting[-1])
        for place, worker in enumerate(self._workers):
            if worker.task is None and self._unassigned:
                if not worker.process.is_alive():  # killed while it had nothing to do
                    worker = self._replace(place)
                worker.give(self._unassigned.popleft(), self._limits.seconds)

    def pop(self, task: _Task[Any]) -> Clip | Refusal:
        """The next piece of what came of a task."""
        made = task.made.popleft()
        self._held -= _bytes(made)
        return made

    def listen(self, first: _Task[Any]) -> None:
        """Take one piece from every worker that has one, and judge those that have been silent for too long.

        Where enough waits already, only the worker at the `first` task is listened to.
        """
        seconds = self._limits.seconds
        busy = [(place, worker) for place, worker in enumerate(self._workers) if worker.task is not None]
        if self._held >= self._limits.ahead:
            for _, worker in busy:
                if worker.task is not first:
                    worker.deadline = time.monotonic() + seconds  # it may have something to say that nobody hears
            busy = [(place, worker) for place, worker in busy if worker.task is first]
        patience = min(worker.deadline for _, worker in busy) - time.monotonic()
        ready = wait([worker.pipe for _, worker in busy], max(0.0, patience))
        for place, worker in busy:
            if worker.pipe in ready:
                self._take(place, worker)
            elif time.monotonic() >= worker.deadline:
                self._give_up(place, worker, Reason.TIMEOUT, f"nothing came of it for {seconds:g} s")

    def kill(self) -> None:
        """End all workers now."""
        for worker in self._workers:
            worker.kill()

    def _take(self, place: int, worker: _Worker) -> None:
        """Read one message of a worker into its task."""
        task = worker.task
        assert task is not None  # it is busy
        try:
            message = _receive(worker.pipe, task.item)
        except (EOFError, OSError):
            worker.process.join(_GRACE)
            self._give_up(place, worker, Reason.WORKER_DIED, _end_of(worker.process.exitcode))
            return
        worker.deadline = time.monotonic() + self._limits.seconds
        if isinstance(message, _Raised):
            self._give_up(place, worker, Reason.WORKER_DIED, message.what)
        elif message is None:
            task.done, worker.task = True, None
        elif worker.skip:
            worker.skip -= 1
        else:
            task.taken += 1
            task.made.append(message)
            self._held += _bytes(message)

    def _give_up(self, place: int, worker: _Worker, reason: Reason, detail: str) -> None:
        """Replace a worker; its task is tried again, before all others, or refused."""
        task = worker.task
        assert task is not None  # it is busy
        self._replace(place)
        task.attempts += 1
        if task.attempts < _ATTEMPTS:
            self._unassigned.appendleft(task)
            return
        self._held -= sum(map(_bytes, task.made))
        task.made.clear()
        task.failure = Refusal(task.item.id, path_of(task.item), reason, f"{detail}, {_ATTEMPTS} times")
        task.done = True

    def _replace(self, place: int) -> _Worker:
        self._workers[place].kill()
        self._workers[place] = _Worker(self._work, self._limits.memory)
        return self._workers[place]


def _bytes(made: Clip | Refusal) -> int:
    """What a piece takes while it waits."""
    return made.frames.nbytes if isinstance(made, Clip) else 0


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV with one thread: there are as many workers as cores.

    Said before a fork, not in it: there the threads of this process are missing, and OpenCV would wait for them.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@dataclass(frozen=True)
class _Frames:
    """A clip whose frames follow as a file: through the pipe they would take many turns of two processes."""

    clip: Clip
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Raised:
    """An error that `work` should not have let out."""

    what: str


def _live(pipe: Connection, work: Work, memory: int, parent: int) -> None:
    """The life of a worker process."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)  # the parent decides
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be asked to tell
            return
        limit = _address_space() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(EOFError, OSError):
        while True:
            item = pipe.recv()
            try:
                for made in work(item):
                    _send(pipe, made, parent)
            except Exception as error:
                pipe.send(_Raised(f"raised {type(error).__name__}: {' '.join(str(error).split())}"))
                return
            pipe.send(None)


def _send(pipe: Connection, made: Clip | Refusal, parent: int) -> None:
    if isinstance(made, Refusal):
        pipe.send(made)
        return
    frames = np.ascontiguousarray(made.frames)
    # The media are known at the other end, and may be large where a table holds them itself.
    light = replace(made.item, media=_ELSEWHERE)
    pipe.send(_Frames(replace(made, item=light, frames=_NO_FRAMES), frames.shape))
    with _shared_file() as file:
        rest = frames.data.cast("B")
        while rest:
            rest = rest[os.write(file.fileno(), rest) :]
        send_handle(pipe, file.fileno(), parent)


def _receive(pipe: Connection, item: Item) -> Any:
    """The next message, about `item`; a clip gets its media and its frames back."""
    message = pipe.recv()
    if not isinstance(message, _Frames):
        return message
    handle = recv_handle(pipe)
    try:
        memory = mmap.mmap(handle, math.prod(message.shape), prot=mmap.PROT_READ)
    finally:
        os.close(handle)
    frames = np.frombuffer(memory, np.uint8).reshape(message.shape)
    return replace(message.clip, item=replace(message.clip.item, media=item.media), frames=frames)


def _shared_file() -> BinaryIO:
    """A file without a name, in memory where the system can do that: gone with the last who has it open."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("frames"), "wb", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _address_space() -> int:
    """Bytes of address space that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _end_of(code: int | None) -> str:
    """How a process ended that left this exit code."""
    if code is None or code >= 0:
        return f"its worker ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"its worker was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
