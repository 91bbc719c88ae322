"""A side of a comparison in a process of its own, which is asked for one thing at a time.

The processes of both sides live at the same time and take turns, so that what else happens on the machine meets both
alike; and the memory of one is not that of the other.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self
from unittest import mock

from nova.errors import ResourceError

_FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Tells glibc to keep no freed tensor for later: how much it would keep is chance."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a process: before it had a model, and at most in its work. None where the system doesn't tell."""

    before: int | None
    peak: int | None

    @property
    def megabytes(self) -> float | None:
        """The most, beyond what the process had before it held a model."""
        return None if self.peak is None or self.before is None else (self.peak - self.before) / 1e6


class Worker:
    """A side in its own process; `ask` calls one of its methods there and waits for the answer."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._link, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    @classmethod
    def frugal(cls, make: Callable[..., Any], *arguments: Any) -> Self:
        """One that gives back whatever it frees, to measure memory."""
        with mock.patch.dict(os.environ, _FREED_AT_ONCE):
            return cls(make, *arguments)

    def ask(self, question: str, *arguments: Any) -> Any:
        """The answer. Raises what the call raised, and ResourceError when the process is gone."""
        try:
            self._link.send((question, arguments))
            answer = self._link.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise ResourceError(
                f"a side of the comparison ended with code {self._process.exitcode} while asked for {question!r}; "
                "if memory ran out, use a smaller --batch"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # it may be in the middle of something long
            self._process.kill()
        self._link.close()
        self._process.join()


def _serve(link: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        side = make(*arguments)
    except Exception as error:
        link.recv()
        link.send(error)
        return
    while True:
        try:
            question, given = link.recv()
        except EOFError:
            return
        try:
            link.send(getattr(side, question)(*given))
        except Exception as error:
            link.send(error)
