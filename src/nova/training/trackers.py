"""Trackers: dashboards of others, which show a run's figures and pictures and must never do anything to the run.

Each works in a thread of its own and takes its reports from a queue. One that is not installed, fails, does not start
in time or falls behind is left out from then on, and that is said once.
"""

from __future__ import annotations

import contextlib
import queue
import re
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jaxtyping import UInt8
from numpy import ndarray

from nova.files import replace_durably
from nova.training.redact import redacted

START_SECONDS, CLOSE_SECONDS = 30.0, 20.0
BACKLOG = 1000
"""Reports that a tracker may be behind with."""

Picture = UInt8[ndarray, "H W 3"]


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run at its start: where it is, how many steps are done, and its configuration."""

    folder: Path
    start: int
    project: str
    config: Mapping[str, Any]

    @property
    def id(self) -> str:
        """A name of this run alone, kept in its folder, so that a resumed run is the same one to a tracker."""
        file = self.folder / "tracker_id"
        if not file.exists():
            name = re.sub(r"[^\w.-]", "-", self.folder.resolve().name, flags=re.ASCII)
            replace_durably(file, f"{name[:60]}-{secrets.token_hex(4)}".encode())
        return file.read_text()


class Tracker(Protocol):
    """Where reports go. Any method may be slow and may raise anything."""

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Show numbers found at a step."""

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Show a picture made at a step."""

    def close(self) -> None:
        """Finish what was begun."""


class TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.start + 1 if run.start else None)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Picture) -> None:
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B, in the mode that WANDB_MODE says. The console and the code stay here."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        settings = wandb.Settings(
            init_timeout=START_SECONDS,
            login_timeout=START_SECONDS,
            console="off",
            disable_git=True,
            save_code=False,
            silent=True,
        )
        self._image = wandb.Image
        self._run = wandb.init(
            project=run.project,
            id=run.id,
            name=run.id,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
            settings=settings,
        )

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def picture(self, step: int, name: str, picture: Picture) -> None:
        self._run.log({name: self._image(picture)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of trackio: local, unless its own settings say otherwise."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._image = trackio.Image
        self._run = trackio.init(
            project=run.project,
            name=run.id,
            resume="allow",
            config=dict(run.config),
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def picture(self, step: int, name: str, picture: Picture) -> None:
        self._run.log({name: self._image(picture)}, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[str, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}
_EXTRAS = {"tensorboard": "train"}


class Apart:
    """The tracker called `name`, in a thread of its own; `say` is told once if it is left out.

    Waits for it to start, at most START_SECONDS: a process that forks loading workers shall not do so meanwhile.
    """

    def __init__(self, name: str, run: TrackedRun, say: Callable[[str], None]) -> None:
        self._name = name
        self._say = say
        self._left_out = False
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._reports: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(BACKLOG)
        self._thread = threading.Thread(target=self._work, args=(run,), name=name, daemon=True)
        with _standard_output_kept():
            self._thread.start()
            if not self._started.wait(START_SECONDS):
                self._leave_out(f"it did not start within {START_SECONDS:g} s")

    def tell(self, report: Callable[[Tracker], None]) -> None:
        """Let the tracker do `report` when it gets to it."""
        if self._left_out:
            return
        try:
            self._reports.put_nowait(report)
        except queue.Full:
            self._leave_out(f"it is behind with {BACKLOG} reports")

    def close(self, patience: float) -> None:
        """Let the tracker finish, within `patience` seconds."""
        with contextlib.suppress(queue.Full):
            self._reports.put_nowait(None)
        with _standard_output_kept():
            self._thread.join(0 if self._left_out else patience)
        if self._thread.is_alive():
            self._leave_out(f"it did not finish within {patience:g} s")

    def _work(self, run: TrackedRun) -> None:
        try:
            tracker = TRACKERS[self._name](run)
            self._started.set()
            while (report := self._reports.get()) is not None:
                report(tracker)
            tracker.close()
        except BaseException as error:  # in its own thread, even sys.exit ends nothing but the tracker
            self._leave_out(_explained(error, self._name))
        finally:
            self._started.set()

    def _leave_out(self, reason: str) -> None:
        with self._lock:
            first, self._left_out = not self._left_out, True
        if first:
            self._say(f"{self._name} is left out from here on: {reason}; metrics.jsonl has everything")


def _standard_output_kept() -> contextlib.redirect_stdout[Any]:
    """Trackers print at their start and end; what a command prints on standard output is for others to read."""
    return contextlib.redirect_stdout(sys.stderr)


def _explained(error: BaseException, name: str) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed (pip install 'nova-video[{_EXTRAS.get(name, name)}]')"
    line = next(iter(str(error).splitlines()), "")
    return redacted(f"{type(error).__name__}: {line}".rstrip(": "))
