"""The outputs of a job, made by the workers of a Ray cluster, and put in their places by this process.

A worker has a GPU, or a machine without any to itself, and loads the model once. It hands back the bytes of finished
files, so the machines need the model (by the same name, with the same bytes) but no folder in common. A worker that
dies is started anew, up to `RESTARTS` times, and its batch made again: the result is the same.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nova.cli.batches import Batch, measured
from nova.cli.make import Item, Made, Maker
from nova.errors import CheckpointError, NovaError, UsageError

if TYPE_CHECKING:
    from nova.cli.task import Task

RESTARTS = 3


class Cluster:
    """The Ray cluster that RAY_ADDRESS names or that runs on this machine; otherwise one of this machine alone."""

    def __init__(self, task: Task, model: str, workers: int | None) -> None:
        """Join it. Raises UsageError where Ray is not installed."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise UsageError("--executor: ray is not installed; pip install 'nova-video[ray]'") from None
        ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        self._ray: Any = ray
        self._task, self._model = task, model
        resources = ray.cluster_resources()
        gpus = 0 if task.device == "cpu" else int(resources.get("GPU", 0))
        self._count = workers or gpus or sum(node["Alive"] for node in ray.nodes())
        self._each = {"num_gpus": gpus / max(self._count, gpus)} if gpus else {}
        self._each["num_cpus"] = max(1, int(resources.get("CPU", 1)) // self._count)
        self.dtype = task.dtype if task.dtype != "auto" else "bfloat16" if gpus else "float32"
        self.whole = bool(gpus)

    def start(self) -> None:
        """Start the workers, which load the model; wait for them."""
        options = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, **self._each}
        worker = self._ray.remote(**options)(Worker)
        self._workers = [worker.remote(self._task, self._model, self.dtype) for _ in range(self._count)]
        self._told([one.ready.remote() for one in self._workers])

    def batch(self, item: Item) -> int:
        """As many as fill one worker's GPU."""
        return int(self._told(self._workers[0].filling.remote(item))) if self.whole else 1

    def make(self, todo: Sequence[Batch], items: Mapping[int, Item], moved: Callable[[int], object]) -> Iterator[Made]:
        """Yield outputs in the order in which workers finish their batches; of sets nothing is heard."""
        waiting = list(reversed(todo))
        free: list[Any] = list(self._workers) if todo else []
        running: dict[Any, Any] = {}
        while waiting or running:
            while waiting and free:
                batch, worker = waiting.pop(), free.pop()
                together = [items[number] for number in batch.numbers]
                running[worker.make.remote(together, batch.missing)] = worker
            (done,), _ = self._ray.wait(list(running), num_returns=1)
            free.append(running.pop(done))
            yield from self._told(done)

    def _told(self, answers: Any) -> Any:
        """What workers answer; an error of ours is raised as it was there."""
        try:
            return self._ray.get(answers)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, NovaError):
                raise error.cause from None
            raise


class Worker:
    """One worker: a maker on another machine, or on this one."""

    def __init__(self, task: Task, model: str, dtype: str) -> None:
        from nova.checkpoints.folder import read_index
        from nova.checkpoints.locate import locate
        from nova.cli.devices import choose_environment, load_pipeline
        from nova.cli.sidecar import fingerprint

        self._failure: NovaError | None = None
        try:
            folder = locate(model)
            if fingerprint(folder, read_index(folder)) != task.sources.model.files:
                raise CheckpointError(f"--model: {model} is not the same on every machine; copy one to all of them")
            environment = choose_environment(task.device, dtype, task.threads, task.offload, compiled=task.compiled)
            self._maker = Maker(task, folder, environment, load_pipeline)
        except NovaError as error:  # told when asked: Ray would only say that the worker died
            self._failure = error

    def ready(self) -> None:
        """Raise what went wrong while loading."""
        if self._failure is not None:
            raise self._failure

    def filling(self, item: Item) -> int:
        """How many outputs like `item` fill the GPU."""
        return measured(lambda: self._maker.probe(item), "cuda")

    def make(self, items: list[Item], missing: list[int]) -> list[Made]:
        """Make `items` together, and hand back the `missing` ones."""
        return list(self._maker.make(items, missing))
