"""What a run reports as it goes: `metrics.jsonl`, TensorBoard where installed, a progress bar on a terminal."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nova.files import replace_durably

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"


class RunLog:
    """Reports of one run, from `start` steps on; lines a killed run wrote beyond that step are dropped."""

    def __init__(self, folder: Path, name: str, start: int, steps: int, batch_size: int, quiet: bool) -> None:
        drop_after(folder / METRICS, start)
        self._file = (folder / METRICS).open("a", encoding="utf-8")
        self._boards = _tensorboard(folder / "tensorboard", start)
        self._batch_size = batch_size
        self._since = (start, time.monotonic())
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=steps, completed=start, figures="")

    def __enter__(self) -> RunLog:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()
        if self._boards is not None:
            self._boards.close()

    def metrics(self, step: int, figures: Mapping[str, float]) -> None:
        """Record the `figures` of the step that made `step` steps done."""
        before, then = self._since
        self._since = (step, time.monotonic())
        rate = (step - before) * self._batch_size / max(self._since[1] - then, 1e-9)
        numbers = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        self._file.write(json.dumps({"step": step, **numbers, "samples_per_second": round(rate, 3)}) + "\n")
        self._file.flush()
        if self._boards is not None:
            for name, value in figures.items():
                self._boards.add_scalar(name, value, step)
        shown = f"loss {figures['loss']:.4f}  rate {figures['learning_rate']:.1e}  {rate:.1f} samples/s"
        self._bar.update(self._task, figures=shown)

    def advance(self, step: int) -> None:
        """Move the progress bar to `step`."""
        self._bar.update(self._task, completed=step)

    def say(self, line: str) -> None:
        """Print one line beside the bar, on standard error, also where the bar is off."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def sync(self) -> None:
        """Wait until the disk has all metrics: what a checkpoint counts as done must not be missing from them."""
        os.fsync(self._file.fileno())


@contextmanager
def counting_bar(name: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar for work that is told by a count, which the yielded function takes."""
    with Progress(console=Console(stderr=True), disable=quiet or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)


def drop_after(path: Path, step: int) -> None:
    """Keep the lines of `path` up to `step`; a last line that was cut by a kill goes as well."""
    if not path.exists():
        return
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if _step(line) <= step]
    replace_durably(path, b"".join(kept))


def _step(line: bytes) -> float:
    if not line.endswith(b"\n"):
        return float("inf")
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _tensorboard(folder: Path, start: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    options: dict[str, Any] = {"purge_step": start + 1} if start else {}
    return SummaryWriter(str(folder), **options)
