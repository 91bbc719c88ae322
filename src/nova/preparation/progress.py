"""What a preparation shows while it works: a bar with counts and the time left, where there is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SPEED_SECONDS = 120.0


class Bar:
    """One bar for each phase of the work, on standard error; nothing where that is no terminal, or if `quiet`."""

    def __init__(self, quiet: bool = False) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            speed_estimate_period=_SPEED_SECONDS,
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def phase(self, name: str, total: int | None) -> None:
        """What follows; the bar of the phase before is full."""
        for task in self._bar.tasks:
            self._bar.update(task.id, total=task.completed)
        self._task = self._bar.add_task(name, total=total, counts="")

    def at(self, done: int, counts: str = "") -> None:
        """So much of the phase is done."""
        self._bar.update(self._task, completed=done, counts=counts)

    def say(self, line: str) -> None:
        """Print one line beside the bar, also where there is none."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
