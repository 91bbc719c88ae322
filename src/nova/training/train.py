"""The training loop, one for everything that is trained here. It reads top to bottom; a step is `nova.training.step`.

Everything random follows from (seed, step, place in the batch), and everything else is in `TrainState`, all of which
is saved: a run that was killed and goes on makes the same numbers as one that was not, bit for bit on the same CPU and
threads.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM, Signals

from torch import nn

from nova.errors import DataError, UsageError, nearest
from nova.training import checkpoint
from nova.training.cluster import Cluster
from nova.training.config import RunConfig
from nova.training.faults import explained
from nova.training.loading import batches
from nova.training.log import RunLog
from nova.training.optimizer import learning_rate
from nova.training.signals import StopRequest
from nova.training.state import Averaged, TrainState
from nova.training.step import differentiate, prepare, update
from nova.training.task import Batch, Task

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Observer:
    """Something that looks at the averaged model after every `every` steps and reports to the log."""

    every: int
    look: Callable[[nn.Module, int, RunLog], None]


@dataclass(frozen=True)
class Outcome:
    """Where a run ended: its state, the averaged model, and the signal that stopped it before its last step."""

    state: TrainState
    model: nn.Module
    stopped: Signals | None


def train(
    task: Task[Batch],
    config: RunConfig,
    folder: Path,
    cluster: Cluster = Cluster(),  # noqa: B008  (frozen)
    quiet: bool = False,
    observer: Observer | None = None,
) -> Outcome:
    """Train `task` in the run `folder`, from its last valid checkpoint on if it has one.

    All processes of `cluster` call this alike.

    Raises:
        UsageError: the batch cannot be split as configured, or a pattern of `config.freeze` matches nothing.
        CheckpointError: there are checkpoints but none is valid, or a weight is no longer finite.
        DataError: `config.max_skipped` steps in a row had no finite loss and gradient, or samples cannot be read.
        ResourceError: a checkpoint cannot be written, or there is no room for those to come.
    """
    parts = split_batch(config, cluster)
    freeze(task.model, config.freeze)
    averaged = Averaged(task.model)
    network = prepare(task.objective, config, cluster)
    state = TrainState.start(task.model, config.optimizer)
    faults = checkpoint.restore(state, folder / CHECKPOINTS, cluster)
    # What a run that was killed in the middle of a deletion has left.
    cluster.on_main(functools.partial(checkpoint.delete_older, folder / CHECKPOINTS, config.keep_checkpoints))
    if state.step < config.steps:
        checkpoint.check_space(state, folder / CHECKPOINTS, config.keep_checkpoints, cluster)
    saved, stopped = state.step, False
    keys = ((step, part) for step in range(state.step, config.steps) for part in parts)
    loading = batches(
        lambda key: task.batch(*key),
        keys,
        config.workers,
        config.worker_timeout,
        lambda key: f"step {key[0]}, samples {', '.join(task.ids(*key))}",
    )
    network.train()
    with (
        closing(loading) as loaded,
        StopRequest() as stop,
        RunLog(folder, task.name, state.step, config, quiet, cluster.main) as log,
    ):
        for fault in faults.values():
            log.say(f"skipped a damaged checkpoint: {fault}")
        while state.step < config.steps and not stopped:
            rate = learning_rate(config.optimizer, state.step, config.steps)
            with explained(state.step, task.sample(state.step), config, cluster):
                step = differentiate(network, loaded, len(parts), config, cluster, lambda: stop.received is not None)
            if step.finite:
                update(state, step, rate, config)
                state.skipped_in_row = 0
            else:
                state.skipped += 1
                state.skipped_in_row += 1
                log.skipped(state.step, step.losses["loss"], step.norm, _all_ids(task, config, state.step))
            state.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            stopped = step.asked_to_stop

            log.advance(state.step)
            if state.step % config.log_every == 0 or state.step == config.steps:
                figures = {"learning_rate": rate, "gradient_norm": step.norm, "skipped": float(state.skipped)}
                log.metrics(state.step, {**step.losses, **figures})
            if observer is not None and (state.step % observer.every == 0 or state.step == config.steps):
                observer.look(averaged.model(state), state.step, log)
            if state.skipped_in_row >= config.max_skipped:
                raise DataError(
                    f"{folder}: {state.skipped_in_row} steps in a row, up to step {state.step}, had no finite loss "
                    "and gradient; resume from the last checkpoint with a lower optimizer.learning_rate"
                )
            if state.step % config.checkpoint_every == 0 or state.step == config.steps:
                saved = _save(state, folder, config, cluster, log)
        if state.step > saved:
            _save(state, folder, config, cluster, log)
    received = (stop.received or SIGTERM) if stopped and state.step < config.steps else None
    return Outcome(state, averaged.model(state), received)


def freeze(model: nn.Module, patterns: tuple[str, ...]) -> None:
    """Stop training the parameters whose module, or whose own name, matches one of `patterns`."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        frozen = [
            name for name in names if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")
        ]
        if not frozen:
            raise UsageError(f"freeze: {pattern!r} matches no module of the model{nearest(pattern, names)}")
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)


def split_batch(config: RunConfig, cluster: Cluster) -> list[range]:
    """The places of a step's batch that this process takes, a micro-batch each."""
    mine = cluster.share(config.batch_size)
    size = config.micro_batch or max(1, len(mine))
    if config.batch_size % cluster.size or len(mine) % size:
        raise UsageError(
            f"batch_size: {config.batch_size} samples don't split evenly over {cluster.size} processes in parts of "
            f"{size}; make batch_size a multiple of {cluster.size * size}"
            + (f", or micro_batch smaller than {size}" if size > 1 and config.batch_size % cluster.size == 0 else "")
        )
    return [range(start, start + size) for start in range(mine.start, mine.stop, size)]


def _save(state: TrainState, folder: Path, config: RunConfig, cluster: Cluster, log: RunLog) -> int:
    log.sync()
    checkpoint.save(state, folder / CHECKPOINTS, config.keep_checkpoints, cluster)
    return state.step


def _all_ids(task: Task[Batch], config: RunConfig, step: int) -> list[str]:
    return list(task.ids(step, range(config.batch_size)))
