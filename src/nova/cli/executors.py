"""Who makes the outputs of a job: what every executor offers, and the one that is this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from nova.cli import devices
from nova.cli.batches import Batch, measured
from nova.cli.make import AHEAD, Item, Made, Maker
from nova.cli.ranks import Share

if TYPE_CHECKING:
    from nova.cli.make import Load
    from nova.cli.task import Task


class Executor(Protocol):
    """Makes outputs. Nothing is loaded before `start`."""

    dtype: str
    """Precision of what it makes."""
    whole: bool
    """Whether outputs depend on their batch, so that batches are made whole."""

    def start(self) -> None:
        """Load the model."""

    def batch(self, item: Item) -> int:
        """How many outputs like `item` to make together."""

    def make(self, todo: Sequence[Batch], items: Mapping[int, Item], moved: Callable[[int], object]) -> Iterator[Made]:
        """Yield the missing outputs of all batches; `moved` is told of sets done."""


class Here:
    """This process, on its own device."""

    def __init__(self, task: Task, folder: Path, share: Share, load: Load | None) -> None:
        self._task, self._folder, self._load = task, folder, load or devices.load_pipeline
        self._environment = devices.choose_environment(
            task.device, task.dtype, task.threads, task.offload, share, task.compiled
        )
        self.dtype = self._environment.dtype
        self.whole = self._environment.device.startswith("cuda")

    def start(self) -> None:
        self._maker = Maker(self._task, self._folder, self._environment, self._load)

    def batch(self, item: Item) -> int:
        """As many as fill a GPU; on a CPU one, since several would run one after another all the same."""
        return measured(lambda: self._maker.probe(item), self._environment.device) if self.whole else 1

    def make(self, todo: Sequence[Batch], items: Mapping[int, Item], moved: Callable[[int], object]) -> Iterator[Made]:
        ahead = 0
        for index, batch in enumerate(todo):
            if index == ahead:
                coming = todo[index : index + max(1, AHEAD // len(batch.numbers))]
                self._maker.ahead([items[number] for some in coming for number in some.numbers])
                ahead += len(coming)
            together = [items[number] for number in batch.numbers]
            yield from self._within_memory(together, batch.missing, moved)

    def _within_memory(self, items: list[Item], missing: list[int], moved: Callable[[int], object]) -> Iterator[Made]:
        """Make `items` together or, where memory does not suffice, one half after the other."""
        writing = sum(item.number in missing for item in items)
        try:
            yield from self._maker.make(items, missing, lambda: moved(writing))
            return
        except torch.OutOfMemoryError:
            if len(items) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(items) // 2
        yield from self._within_memory(items[:half], missing, moved)
        yield from self._within_memory(items[half:], missing, moved)
