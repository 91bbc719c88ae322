"""`nova train --dry-run`: the plans of a recipe in words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import torch

    from nova.recipes.plan import Data, Memory, Plan
    from nova.recipes.run import AnyRun

UTILISATION = 0.4
"""The share of a large matrix product's speed that a step is assumed to reach."""


def tell(config: AnyRun, recipe: str, processes: int, device: torch.device) -> int:
    """Print what each run in `config` would take; problems go to stderr, and the first one's exit code is returned."""
    import torch

    from nova.machine import matrix_product_flops
    from nova.recipes.plan import plan

    codes = []
    speed = cache(lambda precision: matrix_product_flops(device, getattr(torch, precision), runs=2))
    for one in plan(config, processes, device):
        typer.echo(f"{recipe} {one.name}".strip())
        for field, value in _lines(one, speed, device):
            typer.echo(f"  {field:<13}{value}")
        for problem in one.problems:
            print(f"nova: error: {problem}", file=sys.stderr)
            codes.append(problem.exit_code)
    return codes[0] if codes else 0


def _lines(plan: Plan, speed: Callable[[str], float], device: torch.device) -> Iterator[tuple[str, str]]:
    config = plan.config
    batch = f"{config.steps:,} steps of {config.batch_size:,} samples"
    if plan.processes > 1:
        batch += f" on {plan.processes} processes"
    if config.micro_batch is not None:
        batch += f", {config.micro_batch} at a time"
    yield "run", batch
    if plan.parameters is not None and plan.trained is not None:
        yield "parameters", f"{plan.parameters:,}, of which {plan.trained:,} are trained"
    if plan.memory is not None:
        yield "memory", _memory(plan.memory)
        yield "", f"with sharding={config.sharding}, recompute={config.recompute}, on {device.type}"
    if plan.flops is not None:
        each = " on each process" if plan.processes > 1 else ""
        least = "" if plan.least is None else f"; {_si(plan.least)}FLOP if nothing were computed twice"
        yield "compute", f"{_si(plan.flops)}FLOP a step{each}{least}"
        reached = speed(config.precision)
        seconds = plan.flops / (UTILISATION * reached)
        yield "time", f"{_duration(seconds)} a step, {_duration(config.steps * seconds)} in all"
        share = f"{UTILISATION:.0%} of the {_si(reached)}FLOP/s that {config.precision} matrix products reach here"
        yield "", f"at {share}, communication not counted"
    if plan.data is not None:
        yield from _data(plan.data, config.steps)


def _memory(memory: Memory) -> str:
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "average": memory.average,
        "optimizer": memory.moments,
    }
    if memory.step is not None:
        parts["step"] = memory.step
    listed = ", ".join(f"{name} {_si(size)}B" for name, size in parts.items())
    return f"{_si(memory.total)}B a process: {listed}" + ("" if memory.step is not None else ", without a step")


def _data(data: Data, steps: int) -> Iterator[tuple[str, str]]:
    samples = sum(data.counts.values())
    yield "data", f"{data.name}: {samples:,} samples, {data.epoch:,} batches an epoch, {steps / data.epoch:.1f} epochs"
    for shape, count in data.counts.items():
        yield "", f"latents {'x'.join(map(str, shape))}: {count:,} samples"


def _si(value: float) -> str:
    """Three digits, a space and the prefix of a thousand's power."""
    prefixes = iter("kMGTP")
    prefix = ""
    while value >= 999.5 and (larger := next(prefixes, None)) is not None:
        value, prefix = value / 1000, larger
    return f"{value:.3g} {prefix}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{float(f'{seconds / size:.3g}'):,g} {unit}"
    return f"{seconds:.3g} seconds" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
