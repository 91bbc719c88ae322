"""Generation against the published code's: same weights, prompt features and draws, in one run on this machine.

    python benchmarks/generate_peer.py small --peer FOLDER [--rounds 3] [--json]

First the latents of both sides are compared, in float32; where they differ there are no times. Then the sides take
turns, ours, theirs, theirs, ours. What two turns of the same side differ by is the band within which a ratio means
nothing. Peak memory is that of processes that do nothing else. Without --peer ours is measured alone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from generate_cases import CASES
from generate_result import Agreement, Result, distance
from generate_sides import Ours, Published, Setting, Side
from published_code import check_folder
from torch import nn
from workers import Memory, Worker

from nova.autoencoders.adapter import Autoencoder
from nova.bench.limit import least_work
from nova.bench.turns import Turns, take_turns
from nova.errors import NovaError
from nova.machine import device_name


def compare(
    setting: Setting, peer: Path | None, rounds: int, absolute: bool = False, refuse: bool = True
) -> Iterator[Result]:
    """Yield what is known after each part of the comparison; the last is complete.

    `absolute` adds the figures that mean something on a GPU only: the first frame, the autoencoder. Raises ValueError
    where the two compute different things, unless `refuse` is off; UsageError where `peer` does not hold the published
    code.
    """
    sides: list[tuple[Any, ...]] = [(Ours, setting)]
    if peer is not None:
        check_folder(peer)
        sides.append((Published, setting, peer))
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(*side)) for side in sides]
        agreement = _agree(workers, setting)
        if refuse and agreement is not None:
            agreement.check()
        result = dataclasses.replace(_plain(setting, *workers[0].ask("speeds")), agreement=agreement)
        yield result
        if absolute:
            alone = {name: partial(workers[0].ask, name) for name in ("pixels", "first_frame")}
            turns = take_turns(alone, rounds)
            result = dataclasses.replace(result, ours_pixels=turns["pixels"], ours_first_frame=turns["first_frame"])
            yield result
        result = dataclasses.replace(result, **_turns(workers, rounds))
        yield result
        if absolute:
            result = dataclasses.replace(result, memory=_pair([worker.ask("memory") for worker in workers]))
            yield result
        if absolute and peer is not None:
            decoding = [workers[1].ask("decoding") for _ in range(2)]
            yield dataclasses.replace(result, published_decoding=decoding[-1])
    if not absolute:
        yield dataclasses.replace(result, memory=_pair([_memory_alone(side) for side in sides]))


def _turns(workers: Sequence[Worker], rounds: int) -> dict[str, Turns]:
    """What whole generations take. The published code compiles nothing: it warms up with a short one."""
    for worker in workers:
        worker.ask("forget")
    sides = dict(zip(("ours", "published"), workers, strict=False))
    return take_turns(
        {name: partial(worker.ask, "whole") for name, worker in sides.items()},
        rounds,
        warm_up={name: partial(worker.ask, "warm_up") for name, worker in sides.items() if name == "published"},
    )


def _plain(setting: Setting, matrix_product: float, bandwidth: float) -> Result:
    """What is known before anything is generated."""
    case, shape = setting.case, setting.case.random.shape
    model, vae = case.random.transformer("meta"), Autoencoder(case.random.vae("meta"))
    nn.Module.to(model, getattr(torch, setting.dtype))
    work = least_work(
        model,
        frames=shape.latent_frames,
        size=(shape.latent_height, shape.latent_width),
        steps=case.steps,
        diffusion_steps=case.diffusion_steps,
        batch=1,
    )
    return Result(
        setting=setting,
        device=device_name(torch.device(setting.device)),
        parameters=sum(weight.numel() for weight in model.parameters()),
        frames=vae.frames(shape.latent_frames),
        work=work,
        matrix_product=matrix_product,
        bandwidth=bandwidth,
    )


def _agree(workers: Sequence[Worker], setting: Setting) -> Agreement | None:
    """Compare in float32, then turn to the timed runs' precision. None where there is only one side."""
    if len(workers) == 1:
        workers[0].ask("start")
        return None
    free = [worker.ask("check") for worker in workers]
    forced = [worker.ask("forced", free[1]) for worker in workers]
    found = Agreement(distance(*free), distance(*forced))
    for worker in workers:
        worker.ask("start")
    if setting.dtype != "float32":
        half = [distance(worker.ask("forced", free[1]), forced[0]) for worker in workers]
        found = dataclasses.replace(found, half=(half[0], half[1]))
    return found


def _memory_alone(side: tuple[Any, ...]) -> Memory:
    """What a side needs for a whole generation, in a process that gives back whatever it frees."""
    with Worker.frugal(_after_a_tiny_one, *side) as worker:
        worker.ask("start")
        worker.ask("whole")
        return worker.ask("memory")


def _after_a_tiny_one(make: Callable[..., Side], setting: Setting, *rest: Path) -> Side:
    """A side in a process that has generated before: the code's own pages, some 40 MB, are no memory of the model."""
    name = "tiny" if setting.case.random.shape.is_video else "tiny-image"
    tiny = make(dataclasses.replace(setting, name=name), *rest)
    tiny.whole()
    del tiny
    gc.collect()
    return make(setting, *rest)


def _pair(memory: Sequence[Memory]) -> tuple[Memory, Memory | None]:
    return memory[0], memory[1] if len(memory) > 1 else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, as a table or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--peer", type=Path, help="folder of the published code")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="the case's own by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="fuse our operations, as nova generate --compile does")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    setting = Setting(given.case, given.device, given.dtype or CASES[given.case].dtype, given.threads, given.compile)
    try:
        *_, result = compare(setting, given.peer, given.rounds, absolute=given.device == "cuda")
    except (NovaError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result.to_dict()) if given.json else result)
    if given.peer is None:
        print("the published code was not run: no --peer folder given", file=sys.stderr)


if __name__ == "__main__":
    main()
