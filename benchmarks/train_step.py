"""The training step against the published code's: same weights, data and draws, in one run on this machine.

    python benchmarks/train_step.py small --peer FOLDER [--starts 3] [--rounds 4] [--precision bfloat16] [--json]

First the losses and gradients of both sides are compared, in float32; where they differ there are no times. Then the
sides take turns, ours, theirs, theirs, ours, on one batch a round. Data, draws and text features are made outside the
clock. What two turns of the same side differ by is the band within which a ratio means nothing. Where a process's
memory happens to lie can make a tenth of its speed, for as long as it lives: so both sides are started several times.

Without --peer our step is measured alone, against its floor in operations and the speed of a matrix product.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from peer import Published
from published_code import check_folder
from safetensors.torch import save_file
from train_cases import CASES, Case, batch, case, mask_ratio, weights
from train_result import Agreement, Result, Turns
from train_sides import Ours, Setting, Side
from workers import Memory, Worker

from nova.errors import NovaError
from nova.machine import matrix_product_flops
from nova.models.flops import training_flops
from nova.training.config import Recompute

BATCHES = 4
"""Different batches. Each side sees all of them before its turns count: a new shape is slow the first time."""


def measure(setting: Setting, peer: Path | None, starts: int, rounds: int) -> Result:
    """Run both sides, or ours alone where there is no `peer`: so many rounds after each of so many starts.

    Raises ValueError where the two compute different things, UsageError where `peer` does not hold the published code.
    """
    if peer is not None:
        check_folder(peer)
    parameters = write_weights(setting)
    write_weights(_tiny(setting))
    sides: list[tuple[Any, ...]] = [(Ours, setting)]
    if peer is not None:
        sides.append((Published, setting, peer))
    memory = [memory_of(side) for side in sides]
    started: list[list[Turns]] = []
    for _ in range(starts):
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(Worker(*side)) for side in sides]
            findings = [worker.ask("findings") for worker in workers]
            agreement = None if peer is None else Agreement.of(*findings)
            started.append(take_turns(workers, rounds, memory))
    turns = [Turns.together(side) for side in zip(*started, strict=True)]
    return Result(
        setting=setting,
        parameters=parameters,
        matrix_product=matrix_product_flops(torch.device(setting.device), getattr(torch, setting.precision)),
        floor=[floor(setting.case, number % BATCHES) for number in range(rounds)] * starts,
        checked_floor=floor(setting.case, 0),
        counted=(findings[0].forward_flops, None if peer is None else findings[1].forward_flops),
        ours=turns[0],
        published=None if peer is None else turns[1],
        agreement=agreement,
    )


def write_weights(setting: Setting) -> int:
    """Write what both sides start from; how many numbers it is."""
    drawn = weights(setting.case)
    save_file(drawn, setting.weights)
    return sum(tensor.numel() for tensor in drawn.values())


def take_turns(workers: Sequence[Worker], rounds: int, memory: Sequence[Memory]) -> list[Turns]:
    """Let the sides train: every round goes through them and back, on one batch.

    A turn is the second of two steps: during the first the machine's caches still hold the other side's numbers.
    """
    for worker in workers:
        worker.ask("start")
    warm_up = [[worker.ask("step", number)[0] for number in range(BATCHES)] for worker in workers]
    seconds: list[list[tuple[float, float]]] = [[] for _ in workers]
    losses: list[list[float]] = [[] for _ in workers]

    def turn(worker: Worker, number: int) -> tuple[float, float]:
        worker.ask("step", number % BATCHES)
        return worker.ask("step", number % BATCHES)

    for number in range(rounds):
        there = [turn(worker, number) for worker in workers]
        back = [turn(worker, number) for worker in reversed(workers)][::-1]
        for side, (early, late) in enumerate(zip(there, back, strict=True)):
            seconds[side].append((early[0], late[0]))
            losses[side] += [early[1], late[1]]
    averaging = [statistics.median(worker.ask("averaging") for _ in range(3)) for worker in workers]
    return [Turns(*side) for side in zip(warm_up, seconds, losses, averaging, memory, strict=True)]


def memory_of(side: tuple[Any, ...]) -> Memory:
    """What a side needs, found in a process that gives back whatever it frees, and that does nothing else."""
    with Worker.frugal(_after_a_tiny_one, *side) as worker:
        worker.ask("start")
        for number in range(2):
            worker.ask("step", number)
        worker.ask("averaging")
        return worker.ask("memory")


def _after_a_tiny_one(make: Callable[..., Side[Any]], setting: Setting, *rest: Path) -> Side[Any]:
    """A side in a process that has trained before: the pages of the code and of a compiler are no memory of a model."""
    tiny = make(_tiny(setting), *rest)
    tiny.start()
    tiny.step(0)
    tiny.averaging()
    del tiny
    gc.collect()
    return make(setting, *rest)


def _tiny(setting: Setting) -> Setting:
    file = setting.weights.with_name("tiny.safetensors")
    return dataclasses.replace(setting, name="tiny", batch=case("tiny").batch, weights=file)


def floor(chosen: Case, step: int) -> float:
    """Operations that the forward pass on a step's batch needs at least."""
    ratio = mask_ratio(batch(chosen, step), chosen.shape)
    return chosen.batch * training_flops(chosen.shape, mask_ratio=ratio).total


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, as a table or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--peer", type=Path, help="folder of the published code")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batch", type=int, help="samples a step; the case's own by default")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="compile our blocks, as a run's `compile` does")
    parser.add_argument(
        "--recompute",
        choices=get_args(Recompute),
        default="nothing",
        help="what our blocks keep, as a run's `recompute`",
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    size = given.batch or case(given.case).batch
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        setting = Setting(
            given.case, size, file, given.precision, given.device, given.threads, given.compile, given.recompute
        )
        try:
            result = measure(setting, given.peer, given.starts, given.rounds)
        except (NovaError, ValueError) as error:
            sys.exit(f"error: {error}")
    print(json.dumps(result.to_dict()) if given.json else result)
    if given.peer is None:
        print("the published code was not run: no --peer folder given", file=sys.stderr)


if __name__ == "__main__":
    main()
