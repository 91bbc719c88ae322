"""How far a job is: a bar over all of its sets of tokens, with outputs done and time left. On a terminal only."""

from __future__ import annotations

import sys
from types import TracebackType

_SPEED_SECONDS = 600.0
"""Time left is told from the speed over so long."""


class JobProgress:
    """A bar for `outputs` of `sets` sets each, on standard error. Use it as a context; silent where `quiet`."""

    def __init__(self, outputs: int, sets: int, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._sets = sets
        self._made = self._moved = 0
        self._bar = Progress(
            TextColumn("{task.fields[made]} of {task.fields[outputs]}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            speed_estimate_period=_SPEED_SECONDS,
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=outputs * sets, made=0, outputs=outputs)

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def moved(self, sets: int) -> None:
        """So many more sets of outputs in the making are done."""
        self._moved += sets
        self._show()

    def made(self, outputs: int = 1) -> None:
        """So many more outputs are written."""
        self._made += outputs
        self._moved = max(0, self._moved - outputs * self._sets)
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._made * self._sets + self._moved, made=self._made)
