"""The training loop, one for everything that is trained here. It reads top to bottom.

Everything random follows from (seed, step), and everything else is in `TrainState`, all of which is saved: a run
that was killed and goes on makes the same numbers as one that was not, bit for bit on the same CPU and threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from nova.errors import DataError
from nova.training import checkpoint
from nova.training.config import RunConfig
from nova.training.log import RunLog
from nova.training.optimizer import clip_gradients, learning_rate
from nova.training.signals import StopRequest
from nova.training.state import TrainState

Batch = TypeVar("Batch")
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """What the loop trains.

    name: for the progress bar.  model: its trainable parameters are trained, in place.
    batch: the data of a step, a pure function of its number.  loss: scalars of the model on a batch and a step's
    random draws; `loss` is differentiated, the others are logged.  ids: names of a batch's samples, for the
    report of a step that failed.
    """

    name: str
    model: nn.Module
    batch: Callable[[int], Batch]
    loss: Callable[[nn.Module, Batch, int], Mapping[str, Tensor]]
    ids: Callable[[int], Sequence[int]] = field(default=lambda step: ())


@dataclass(frozen=True)
class Outcome:
    """Where a run ended: its state, and the signal that stopped it before its last step, if one did."""

    state: TrainState
    stopped: Signals | None


def train(task: Task[Batch], config: RunConfig, folder: Path, quiet: bool = False) -> Outcome:
    """Train `task` in the run `folder`, from its last valid checkpoint on if it has one.

    Raises:
        CheckpointError: there are checkpoints but none is valid, or a weight is no longer finite.
        DataError: `config.max_skipped` steps in a row had no finite loss and gradient.
        ResourceError: a checkpoint cannot be written.
    """
    state = TrainState.start(task.model, config.optimizer)
    faults = _resume(state, folder / CHECKPOINTS)
    saved = state.step
    precision = torch.autocast(_device(task.model).type, torch.bfloat16, enabled=config.precision == "bfloat16")
    task.model.train()
    with (
        StopRequest() as stop,
        RunLog(folder, task.name, state.step, config.steps, config.batch_size, quiet) as log,
    ):
        for fault in faults:
            log.say(f"skipped a damaged checkpoint: {fault}")
        while state.step < config.steps and stop.received is None:
            batch = task.batch(state.step)
            rate = learning_rate(config.optimizer, state.step, config.steps)
            with precision:
                losses = task.loss(task.model, batch, state.step)
            losses["loss"].backward()
            norm = clip_gradients(task.model, config.optimizer.clip_norm)
            if torch.isfinite(losses["loss"]) and torch.isfinite(norm):
                _update(state, rate, config)
                state.skipped_in_row = 0
            else:
                state.skipped += 1
                state.skipped_in_row += 1
                log.say(f"step {state.step}: loss or gradient not finite, skipped; samples {task.ids(state.step)}")
            state.optimizer.zero_grad(set_to_none=True)
            state.step += 1

            log.advance(state.step)
            if state.step % config.log_every == 0 or state.step == config.steps:
                figures = {name: float(value.detach()) for name, value in losses.items()}
                log.metrics(
                    state.step,
                    {**figures, "learning_rate": rate, "gradient_norm": float(norm), "skipped": state.skipped},
                )
            if state.skipped_in_row >= config.max_skipped:
                raise DataError(
                    f"{folder}: {state.skipped_in_row} steps in a row, up to step {state.step}, had no finite loss "
                    "and gradient; resume from the last checkpoint with a lower optimizer.learning_rate"
                )
            if state.step % config.checkpoint_every == 0 or state.step == config.steps:
                saved = _save(state, folder, config, log)
        if state.step > saved:
            _save(state, folder, config, log)
    return Outcome(state, stop.received if state.step < config.steps else None)


def _resume(state: TrainState, folder: Path) -> list[str]:
    """Bring `state` to the newest valid checkpoint, if any; returns the faults of newer ones."""
    found = checkpoint.find(folder)
    if found is None:
        return []
    state.load(found.tensors, found.counters)
    checkpoint.set_aside(folder, found.faults)
    return list(found.faults.values())


def _update(state: TrainState, rate: float, config: RunConfig) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    if (state.step + 1) % config.optimizer.ema_every == 0:
        state.ema.update(state.model)


def _save(state: TrainState, folder: Path, config: RunConfig, log: RunLog) -> int:
    log.sync()
    checkpoint.save(state, folder / CHECKPOINTS, config.keep_checkpoints)
    return state.step


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
