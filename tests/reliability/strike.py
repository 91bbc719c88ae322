"""Processes that are struck by a signal at a chosen moment of their work, and what became of them.

A strike waits for the n-th time that a process says a word: it follows the process's progress, not the clock, which
would mostly hit the start of Python. The process waits there to be struck, so that however late this one is, it strikes
in time; unless the strike shall come a little later, which may then be any time later where the machine is loaded.
Processes are forked from one that has PyTorch loaded and has never computed anything with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
OURS = ("__main__", "tests.reliability.victims", "tests.reliability.syscalls")
TORCHS = ("torch._dynamo", "safetensors.torch", "numpy.random")
PRELOADED = [*OURS, *TORCHS]
"""Modules of the process that all are forked from; PyTorch would load its own in the first step of each."""
SECONDS = 120.0
"""A process that is silent for so long counts as hanging."""

PHASES = {
    "load": "loading",
    "loaded": "training",
    "step": "training",
    "look": "observing",
    "looked": "training",
    "save": "saving",
    "delete": "deleting",
    "saved": "training",
    "asked": "stopping",
}
"""What a process does after each word."""


@dataclass(frozen=True)
class Strike:
    """Signal `number` when `word` is said for the `count`-th time, or, where there is a `delay`, so many seconds later.

    Without a delay the process waits at that word until it is struck.
    """

    word: str
    count: int = 1
    delay: float | None = None
    number: signal.Signals = signal.SIGKILL


@dataclass
class Fate:
    """What a process said, each word with the time it was heard, and how it ended; of one that works, so far.

    told: the dict that it said last, if it did.  code: its exit code.
    phase: what it did when it was struck first, None if it ended before.  seconds: from then to its end.
    """

    words: list[tuple[str, float]] = field(default_factory=list)
    told: dict[str, Any] | None = None
    code: int | None = None
    phase: str | None = None
    seconds: float = 0.0

    @property
    def killed(self) -> bool:
        """Whether it died of SIGKILL."""
        return self.code == -signal.SIGKILL

    def hear(self, pipe: Connection) -> None:
        """Take what is said next. Raises EOFError where nothing more will be."""
        assert pipe.poll(SECONDS), f"silent for {SECONDS:g} s after {self.words[-1:]}"
        said = pipe.recv()
        if isinstance(said, dict):
            self.told = said
        else:
            self.words.append((said, time.monotonic()))

    def count(self, word: str) -> int:
        """How often `word` was said."""
        return sum(said == word for said, _ in self.words)

    def lasting(self, first: str, last: str) -> list[float]:
        """Seconds from each `first` to the next `last`."""
        found, begun = [], 0.0
        for word, when in self.words:
            if word == first:
                begun = when
            elif word == last:
                found.append(when - begun)
        return found


class Voice(Connection):
    """The pipe through which a process says words; after each of `halts`, a word and its count, it waits for one."""

    def __init__(self, pipe: Connection, halts: tuple[tuple[str, int], ...]) -> None:
        super().__init__(os.dup(pipe.fileno()))
        pipe.close()
        self._halts = halts
        self._counts: Counter[str] = Counter()

    def send(self, said: object) -> None:
        super().send(said)
        if isinstance(said, str):
            self._counts[said] += 1
            if (said, self._counts[said]) in self._halts:
                self.recv()


@contextmanager
def process(
    act: Callable[..., None], *arguments: object, halts: tuple[tuple[str, int], ...] = ()
) -> Iterator[tuple[ForkServerProcess, Connection]]:
    """A process that does `act(*arguments, pipe)`, and the other end of the pipe; it is dead afterwards.

    After each of `halts`, a word and its count, it waits for an answer.
    """
    ours, theirs = CONTEXT.Pipe()
    one = CONTEXT.Process(target=_begin, args=(act, arguments, theirs, halts))
    one.start()
    theirs.close()
    try:
        yield one, ours
    finally:
        one.kill()
        one.join()
        ours.close()


def lived(act: Callable[..., None], *arguments: object, strikes: tuple[Strike, ...] = ()) -> Fate:
    """Let a process live, struck by each of `strikes` in turn. Fails where it hangs."""
    fate = Fate()
    struck = None
    halts = tuple((strike.word, strike.count) for strike in strikes if strike.delay is None)
    with process(act, *arguments, halts=halts) as (one, pipe):
        with suppress(EOFError):
            for strike in strikes:
                while fate.count(strike.word) < strike.count:
                    fate.hear(pipe)
                time.sleep(strike.delay or 0.0)
                while pipe.poll(0):
                    fate.hear(pipe)
                fate.phase = fate.phase or PHASES[fate.words[-1][0]]
                struck = struck or time.monotonic()
                _send(one, strike.number)
                if strike.delay is None and strike.number != signal.SIGKILL:
                    pipe.send("go on")
        finish(one, pipe, fate)
        fate.seconds = time.monotonic() - (struck or time.monotonic())
    if fate.killed:
        fate.phase = PHASES[fate.words[-1][0]]
    return fate


def finish(one: ForkServerProcess, pipe: Connection, fate: Fate) -> None:
    """Hear a process out."""
    with suppress(EOFError):
        while True:
            fate.hear(pipe)
    one.join(SECONDS)
    fate.code = one.exitcode
    assert fate.code is not None, f"said its last word, {fate.words[-1:]}, but did not end"


def _begin(
    act: Callable[..., None], arguments: tuple[object, ...], tell: Connection, halts: tuple[tuple[str, int], ...]
) -> None:
    os.setpgid(0, 0)
    act(*arguments, Voice(tell, halts))


def _send(one: ForkServerProcess, number: signal.Signals) -> None:
    """Send a signal to the process alone if it kills, else to its group, as a terminal and Slurm do."""
    assert one.pid is not None
    with suppress(ProcessLookupError):  # it has just ended
        (os.kill if number == signal.SIGKILL else os.killpg)(one.pid, number)
