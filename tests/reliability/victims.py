"""Runs to be interrupted: small enough for steps of milliseconds, and saying where they are at every moment.

Each function here is what a process of `tests.reliability.strike` does from its start to its end. What it says goes
through a pipe, a word for each event, so that the last word is where the process was when it died.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch
from torch import nn

from nova.errors import NovaError
from nova.lock import run_lock
from nova.training import checkpoint
from nova.training.config import RunConfig
from nova.training.log import RunLog
from nova.training.signals import StopRequest
from nova.training.state import TrainState
from nova.training.task import Task
from nova.training.train import CHECKPOINTS, Observer, train
from tests.training.toy import toy, toy_run, toy_task

if TYPE_CHECKING:
    from nova.training.transformer import TransformerRun


@dataclass(frozen=True)
class Manner:
    """How a run of these tests behaves: seconds that a batch and a look at the model take, and steps between looks."""

    batch: float = 0.0
    look: float = 0.0
    look_every: int = 3


def small_run(**changes: object) -> RunConfig:
    """Forty steps of the toy, saved after every other."""
    return toy_run(**({"steps": 40, "checkpoint_every": 2, "trackers": ()} | changes))


def larger_run(**changes: object) -> TransformerRun:
    """The same of a transformer of a million parameters, on random latents, with captions, masks and noise.

    Saving it takes as long as a few steps.
    """
    from tests.training.samples import SIZE, latent_run

    size = SIZE.model_copy(update={"width": 128, "heads": 4, "denoiser_width": 128})
    return latent_run(**({"steps": 40, "batch_size": 2, "checkpoint_every": 2, "model": size} | changes))


def task_of(config: RunConfig, folder: Path) -> Task:
    """What a run of either kind trains. Imports of a transformer's take longer than all short tests together."""
    if type(config) is RunConfig:
        resumed = any((folder / CHECKPOINTS).glob("step-*"))
        return toy_task(toy(seed=int(resumed)))  # first weights no longer matter
    from nova.autoencoders.adapter import Autoencoder
    from nova.training.transformer import TransformerRun, new_transformer, transformer_task
    from tests.training.samples import TEXT_DIM, Samples, small_autoencoder

    assert isinstance(config, TransformerRun)
    model = new_transformer(config, (4, 2, 4, 4), TEXT_DIM, None)
    return transformer_task(config, model, Samples((12,)), Autoencoder(small_autoencoder()))


def trained(folder: Path, config: RunConfig, manner: Manner, tell: Connection) -> None:
    """Train in `folder`, from wherever it is; tells each event, and at the end what came out."""
    with run_lock(folder):
        _train(folder, config, manner, tell)


def contending(folder: Path, config: RunConfig, start: float, pipe: Connection) -> None:
    """When the clock shows `start`, try to have `folder`: says so, waits for a word, and trains; or tells the error."""
    time.sleep(max(0.0, start - time.time()))
    try:
        with run_lock(folder):
            pipe.send("holding")
            pipe.recv()
            _train(folder, config, Manner(), pipe)
    except NovaError as error:
        pipe.send({"refused": str(error)})


def _train(folder: Path, config: RunConfig, manner: Manner, tell: Connection) -> None:
    torch.set_num_threads(1)
    _announce(tell)
    task = task_of(config, folder)

    def batch(step: int, places: range) -> object:
        time.sleep(manner.batch)
        return task.batch(step, places)

    def look(shown: nn.Module, step: int, log: RunLog) -> None:
        tell.send("look")
        with torch.no_grad():
            for parameter in shown.parameters():
                parameter.add_(torch.randn(parameter.shape))  # neither numbers drawn here nor this model are the run's
        _wait(manner.look)
        tell.send("looked")

    task.objective.register_forward_pre_hook(lambda *_: tell.send("step"))
    observer = Observer(manner.look_every, look)
    outcome = train(replace(task, batch=batch), config, folder, quiet=True, observer=observer)
    tell.send({"stopped": outcome.stopped, "step": outcome.state.step, "state": digests(outcome.state)})


def _wait(seconds: float) -> None:
    """Sleep in short naps: a signal that comes just before a nap is not heard until its end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(0.01, seconds))


def digests(state: TrainState) -> dict[str, str]:
    """Checksums of all that a run must keep, taken from where each is used, not from what a checkpoint holds."""
    moments = {
        f"{number} {name}": tensor
        for number, found in enumerate(state.optimizer.state.values())
        for name, tensor in found.items()
    }
    parts = {"weights": state.model.state_dict(), "average": state.ema.shadows, "optimizer": moments}
    found = {name: _digest(tensors) for name, tensors in parts.items()}
    return found | {"counters": f"{state.step} {state.skipped} {state.skipped_in_row} {state.ema.updates}"}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode())
        whole.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def _announce(tell: Connection) -> None:
    """Have loading, saving, the deletion of old checkpoints and a request to stop told, for this process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests themselves may run where it is ignored

    def told(function: Callable, before: str, after: str) -> Callable:
        def telling(*arguments: object, **options: object) -> object:
            tell.send(before)
            result = function(*arguments, **options)
            tell.send(after)
            return result

        return telling

    def remove(path: Path, *arguments: object, **options: object) -> None:
        if path.name.startswith("step-"):
            tell.send("delete")
        rmtree(path, *arguments, **options)

    rmtree = shutil.rmtree
    shutil.rmtree = remove  # type: ignore[assignment]
    checkpoint.restore = told(checkpoint.restore, "load", "loaded")
    checkpoint.save = told(checkpoint.save, "save", "saved")
    receive = StopRequest._receive

    def received(self: StopRequest, number: int, frame: FrameType | None) -> None:
        receive(self, number, frame)
        tell.send("asked")

    StopRequest._receive = received  # type: ignore[method-assign]
