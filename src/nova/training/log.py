"""What a run reports as it goes: a bar on a terminal, JSON lines in its folder, and trackers.

Reports are all they are. Whatever fails here is said once, and the run goes on with the same numbers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nova.training.config import RunConfig
from nova.training.lines import StepLines
from nova.training.trackers import CLOSE_SECONDS, Apart, Picture, TrackedRun

METRICS, SKIPPED = "metrics.jsonl", "skipped.jsonl"
_NAMED = 20
_SPEED_SECONDS = 300.0
"""Time left is told from the speed over so long: a step of a large model takes many seconds."""


class RunLog:
    """Reports of one run, from `start` steps on. Where `main` is false it does nothing: one process speaks for all."""

    def __init__(self, folder: Path, name: str, start: int, config: RunConfig, quiet: bool, main: bool = True) -> None:
        self._main = main
        self._batch_size = config.batch_size
        self._since = (start, time.monotonic())
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            speed_estimate_period=_SPEED_SECONDS,
            disable=quiet or not main or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=config.steps, completed=start, figures="")
        if main:
            self._lines = StepLines(folder / METRICS, start, self.say)
            self._skipped = StepLines(folder / SKIPPED, start, self.say)
            run = TrackedRun(folder, start, config.project or "nova", config.model_dump(mode="json"))
            self._trackers = [Apart(name, run, self.say) for name in config.trackers]

    def __enter__(self) -> RunLog:
        self._bar.start()
        self._since = (self._since[0], time.monotonic())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if not self._main:
            return
        in_a_hurry = kind is not None and not issubclass(kind, Exception)  # such as a second Ctrl-C
        for tracker in self._trackers:
            tracker.close(0 if in_a_hurry else CLOSE_SECONDS)
        self._lines.close()
        self._skipped.close()

    def metrics(self, step: int, figures: Mapping[str, float]) -> None:
        """Record the `figures` of the step that made `step` steps done, `loss` and `learning_rate` among them."""
        if not self._main:
            return
        before, then = self._since
        self._since = (step, time.monotonic())
        rate = (step - before) * self._batch_size / max(self._since[1] - then, 1e-9)
        self.observed(step, {**figures, "samples_per_second": round(rate, 3)})
        shown = f"loss {figures['loss']:.4f}  rate {figures['learning_rate']:.1e}  {rate:.1f} samples/s"
        self._bar.update(self._task, figures=shown)

    def observed(self, step: int, figures: Mapping[str, float]) -> None:
        """Record what an observer found after `step` steps, in a line of its own."""
        if not self._main:
            return
        self._lines.write(step, figures)
        for tracker in self._trackers:
            tracker.tell(lambda shown: shown.figures(step, figures))

    def images(self, step: int, name: str, sheet: Picture) -> None:
        """Show a picture made after `step` steps to the trackers."""
        if not self._main:
            return
        for tracker in self._trackers:
            tracker.tell(lambda shown: shown.picture(step, name, sheet))

    def skipped(self, step: int, loss: float, norm: float, ids: Sequence[str]) -> None:
        """Name the samples `ids` of a step, the one after `step` steps, that was left out for its loss or gradient."""
        if not self._main:
            return
        self._skipped.write(step + 1, {"loss": loss, "gradient_norm": norm, "samples": list(ids)})
        named = ", ".join(ids[:_NAMED]) + (f" and {len(ids) - _NAMED} more in {SKIPPED}" if len(ids) > _NAMED else "")
        self.say(f"step {step + 1} is left out: loss {loss}, gradient norm {norm}, samples {named}")

    def advance(self, step: int) -> None:
        """Move the progress bar to `step`."""
        self._bar.update(self._task, completed=step)

    def say(self, line: str) -> None:
        """Print one line beside the bar, on standard error, also where the bar is off."""
        if self._main:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def sync(self) -> None:
        """Wait until the disk has all lines: what a checkpoint counts as done must not be missing from them."""
        if self._main:
            self._lines.sync()
            self._skipped.sync()


@contextmanager
def counting_bar(name: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar for work that is told by a count, which the yielded function takes."""
    with Progress(console=Console(stderr=True), disable=quiet or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)
