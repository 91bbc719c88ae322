"""Several processes of one run on this machine, over gloo: each runs one of the functions of `SCENES`.

python -m tests.training.ranks SCENE FOLDER [FIELD=VALUE ...]
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from nova.autoencoders.adapter import Autoencoder
from nova.errors import NovaError
from nova.recipes.overrides import override
from nova.training.cluster import Cluster, cluster
from nova.training.task import Task
from nova.training.train import Outcome, train
from nova.training.transformer import TransformerRun, new_transformer, transformer_task
from tests.training.samples import TEXT_DIM, Samples, latent_run, small_autoencoder

RUN = {"steps": 6, "batch_size": 4, "checkpoint_every": 2, "keep_checkpoints": 9}
ROOT = Path(__file__).parents[2]


SECONDS = 400.0
"""Processes that take longer hang; less than the ten minutes after which one that is alone would give up."""


def together(size: int, scene: str, folder: Path, *settings: str) -> list[subprocess.CompletedProcess]:
    """Run a scene in `size` processes at once; those left after `SECONDS` are killed."""
    command = [sys.executable, "-m", "tests.training.ranks", scene, str(folder), *settings]
    with free_port() as port:
        shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
        running = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=shared | {"RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        end = time.monotonic() + SECONDS
        done = []
        for one in running:
            try:
                out, err = one.communicate(timeout=max(1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.kill()
                out, err = one.communicate()
            done.append(subprocess.CompletedProcess(command, one.returncode, out, err))
    return done


@contextmanager
def free_port() -> Iterator[int]:
    """A port on which processes can meet, and which the system gives to nobody else as long as the context lasts."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # another may listen where this one does not
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def told(done: Sequence[subprocess.CompletedProcess]) -> list[dict]:
    """What each process printed last, as JSON; all must have ended well."""
    for one in done:
        assert one.returncode == 0, one.stderr
    return [json.loads(one.stdout.splitlines()[-1]) for one in done]


def config_of(settings: Sequence[str]) -> TransformerRun:
    """The run of all scenes, changed."""
    return override(latent_run(**RUN), list(settings))


def task_of(config: TransformerRun) -> Task:
    """Its task, on random latents."""
    model = new_transformer(config, (4, 2, 4, 4), TEXT_DIM, None)
    return transformer_task(config, model, Samples((12,)), Autoencoder(small_autoencoder()))


def plain(here: Cluster, folder: Path, config: TransformerRun) -> Outcome:
    """Train to the end."""
    return train(task_of(config), config, folder, here, quiet=True)


def signalled(here: Cluster, folder: Path, config: TransformerRun) -> Outcome:
    """The second process is told to stop in its third step."""

    def batch(step: int, places: range) -> object:
        if here.rank == 1 and step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return task.batch(step, places)

    task = task_of(config)
    return train(replace(task, batch=batch), config, folder, here, quiet=True)


def spoiled(here: Cluster, folder: Path, config: TransformerRun) -> Outcome:
    """The second process has a latent that is no number in its third step."""

    def batch(step: int, places: range) -> object:
        made = task.batch(step, places)
        if here.rank == 1 and step == 2:
            made.latents[0, 0, 0, 0, 0] = float("nan")
        return made

    task = task_of(config)
    return train(replace(task, batch=batch), config, folder, here, quiet=True)


def failing(here: Cluster, folder: Path, config: TransformerRun) -> Outcome:
    """The process and the step that FAILS names, the second in its third step by default, fails in the way it names."""
    rank, failing_step, manner = os.environ.get("FAILS", "1 2 killed").split()

    def batch(step: int, places: range) -> object:
        if here.rank == int(rank) and step == int(failing_step):
            if manner == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("planted") if manner == "raises" else torch.OutOfMemoryError("planted")
        return task.batch(step, places)

    task = task_of(config)
    return train(replace(task, batch=batch), config, folder, here, quiet=True)


SCENES = {scene.__name__: scene for scene in (plain, signalled, spoiled, failing)}


def main() -> None:
    """Run a scene and print what came of it: steps, signal, weights, and the samples of the first step."""
    torch.set_num_threads(1)
    scene, folder, *settings = sys.argv[1:]
    config = config_of(settings)
    with cluster() as here:
        try:
            outcome = SCENES[scene](here, Path(folder), config)
        except NovaError as error:
            print(f"nova: {error}", file=sys.stderr)
            os._exit(error.exit_code)
        digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in outcome.model.parameters()))
        mine = task_of(config).ids(0, here.share(config.batch_size))
        found = {
            "step": outcome.state.step,
            "skipped": outcome.state.skipped,
            "stopped": outcome.stopped,
            "average": digest.hexdigest(),
            "samples": mine,
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
