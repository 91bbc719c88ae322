"""A batch that is killed again and again ends with the bytes of one that was not (row F7), here and on two processes.

The model is a real one, of a few thousand parameters. Processes are forked from one that has PyTorch loaded and has
never computed anything with it; kills follow the files that are there, not the clock.
"""

import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nova import cli
from tests import tiny

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "nova.cli.executors", "nova.pipeline.pipeline", "torch._dynamo"])
FEW = ("--steps", "2", "--diffusion-steps", "2", "--frames", "5", "--quiet")
SECONDS = 600.0


def run(folder: Path, arguments: list[str], variables: dict[str, str], most: int | None) -> None:
    """`nova` with `arguments` in `folder`, as a process of its own; with `most` files made it makes no more."""
    if most is not None:
        halt_before(folder / "out", most)
    os.chdir(folder)
    os.environ.update(variables)
    torch.set_num_threads(1)
    sys.exit(cli.main(arguments))


def halt_before(out: Path, number: int) -> None:
    """Let this process wait for ever where it would give a file in `out` its name, once `number` have theirs."""
    places = itertools.count()

    def heard(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and Path(str(arguments[1])).absolute().parent == out and next(places) >= number:
            signal.pause()

    sys.addaudithook(heard)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny.pipeline().save_pretrained(folder)
    return folder


class Batch:
    """A command over a file of prompts, and the folder that it fills."""

    def __init__(self, model: Path, folder: Path, prompts: int) -> None:
        folder.mkdir()
        lines = [f"{colour} kite {number}" for number in range(prompts // 2) for colour in ("a red", "the calm sea")]
        (folder / "prompts.txt").write_text("\n".join(lines))
        self.folder = folder
        self.arguments = ["generate", "--prompts", "prompts.txt", "--output", "out", "--model", str(model), *FEW]

    def start(self, most: int | None = None, **variables: str) -> multiprocessing.Process:
        process = CONTEXT.Process(target=run, args=(self.folder, self.arguments, variables, most))
        process.start()
        return process

    def finish(self, *processes: multiprocessing.Process) -> None:
        for process in processes or (self.start(),):
            process.join(SECONDS)
            assert process.exitcode == 0

    def names(self) -> list[str]:
        out = self.folder / "out"
        return sorted(os.listdir(out)) if out.is_dir() else []

    def files(self) -> dict[str, bytes]:
        return {name: (self.folder / "out" / name).read_bytes() for name in self.names()}

    def kill_after(self, process: multiprocessing.Process, more: int, delay: float) -> bool:
        """Kill once `more` further files are there and a little later; whether the process had not ended by itself."""
        before, deadline = len(self.names()), time.monotonic() + SECONDS
        while len(self.names()) < before + more and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        time.sleep(delay)
        process.kill()
        process.join()
        return process.exitcode == -signal.SIGKILL


@pytest.fixture
def batch(model, tmp_path):
    return lambda name, prompts: Batch(model, tmp_path / name, prompts)


def test_one_kill(batch):
    whole, struck = batch("whole", 6), batch("struck", 6)
    whole.finish()
    assert len(whole.files()) == 12
    assert struck.kill_after(struck.start(most=5), more=5, delay=0.0)
    left = struck.names()
    assert 5 <= len(left) < 12
    struck.finish()
    assert struck.files() == whole.files()


def test_two_processes_make_in_batches_what_one_makes_one_by_one(batch):
    alone, shared = batch("alone", 6), batch("shared", 6)
    alone.finish()
    shared.arguments += ["--batch", "2"]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
    first = shared.start(**ranks[0])
    shared.finish(first)
    assert len(shared.names()) == 6
    shared.finish(shared.start(**ranks[1]))
    assert shared.files() == alone.files()
    for path in (shared.folder / "out").glob("*-[24].mp4"):  # of the first process
        path.write_bytes(b"")
    both = [shared.start(**variables) for variables in ranks]
    shared.finish(*both)
    assert shared.files() == alone.files()


@pytest.mark.slow
def test_torchrun(batch):
    alone, shared = batch("alone", 6), batch("shared", 6)
    alone.finish()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nova"]
    subprocess.run([*torchrun, *shared.arguments], cwd=shared.folder, check=True, capture_output=True)
    assert shared.files() == alone.files()


@pytest.mark.slow
def test_ray(batch):
    pytest.importorskip("ray")
    alone, spread = batch("alone", 6), batch("spread", 6)
    alone.finish()
    spread.arguments += ["--executor", "ray", "--workers", "2"]
    command = [sys.executable, "-m", "nova", *spread.arguments]
    variables = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run(command, cwd=spread.folder, check=True, env=variables)
    assert spread.files() == alone.files()
    (spread.folder / "out" / "a-red-kite-0-0.mp4").write_bytes(b"")
    done = subprocess.run([*command, "--json"], cwd=spread.folder, check=True, env=variables, capture_output=True)
    assert json.loads(done.stdout)["found"] == 5
    assert spread.files() == alone.files()


@pytest.mark.slow
def test_two_hundred_prompts_and_twenty_kills(batch):
    whole, struck = batch("whole", 200), batch("struck", 200)
    whole.finish()
    chance, kills, halves = random.Random(0), 0, 0
    while kills < 20:
        kills += struck.kill_after(struck.start(), chance.randrange(1, 19), chance.uniform(0, 0.03))
        stems = [name.removesuffix(".json") for name in struck.names() if name.endswith(".json")]
        halves += any(f"{stem}.mp4" not in struck.names() for stem in stems)
        assert len(struck.names()) < 400, "the batch ended before the last kill"
    struck.finish()
    assert struck.files() == whole.files()
    print(
        f"{kills} kills, {halves} times with a sidecar whose clip was not there yet: {len(whole.files())} equal files"
    )
