"""`nova bench`: how fast a model generates on this machine, and how far from the machine's limit."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated

import typer

from nova.cli.generate import Dtype
from nova.cli.request import parse_size
from nova.errors import UsageError
from nova.presets import PRESETS

_what = partial(typer.Option, rich_help_panel="What to make")
_how = partial(typer.Option, rich_help_panel="How to measure")


def bench(
    model: Annotated[str, typer.Option(metavar="MODEL", help="A name, a folder or a hub id.")] = "digits",
    random: Annotated[
        str | None, typer.Option(metavar="NAME", help="Random weights of a size in place of a model: 0.6B-t2v-480.")
    ] = None,
    frames: Annotated[int | None, _what(help="Frames; 1 is an image. (default: the trained length)")] = None,
    size: Annotated[str | None, _what(metavar="HxW", help="Pixels. (default: the trained size)")] = None,
    batch: Annotated[int, _what(min=1, help="Samples made together.")] = 1,
    preset: Annotated[str, _what(metavar="|".join(PRESETS), help="How carefully; as of nova generate.")] = "exact",
    steps: Annotated[int | None, _what(help="Autoregressive steps a frame. (default: the preset's)")] = None,
    diffusion_steps: Annotated[int | None, _what(help="Denoising steps a token. (default: the preset's)")] = None,
    rounds: Annotated[int, _how(min=1, help="Rounds; in each everything runs twice.")] = 3,
    dtype: Annotated[Dtype, _how(help="Precision; auto is bfloat16 on a GPU, else float32.")] = Dtype.auto,
    device: Annotated[str, _how(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    compiled: Annotated[
        bool, _how("--compile", help="Fuse operations first, as nova generate --compile does.")
    ] = False,
    threads: Annotated[int | None, _how(min=1, help="CPU threads. (default: torch's)")] = None,
    as_json: Annotated[bool, _how("--json", help="Print one JSON object with every figure.")] = False,
) -> None:
    """Measure generation: seconds, the first frame's delay, frames a second, memory, and the gap to the limit.

    Loading and the first run are outside the clock. The limit is what the fewest operations and bytes would take at the
    speeds of a matrix product and of a copy, measured in the same run.
    """
    height, width = (None, None) if size is None else parse_size(size)
    import torch

    from nova.bench.generation import Setting, measure
    from nova.bench.models import random_model
    from nova.cli.devices import choose_environment, hasten, load_pipeline

    environment = choose_environment(device, dtype.value, threads, offload=False, compiled=compiled)
    if random is None:
        from nova.checkpoints.locate import locate

        pipe = load_pipeline(locate(model), environment, offload=False)
        pipe.set_progress_bar_config(disable=True)
    elif model != "digits":
        raise UsageError(f"--model {model} and --random {random}: give one of them")
    else:
        pipe = random_model(random).pipeline(environment.device, getattr(torch, environment.dtype))
    hasten(pipe, environment)
    setting = Setting(frames, height, width, preset, steps, diffusion_steps, batch, rounds)
    result = measure(pipe, setting)
    name = model if random is None else f"{random} (random weights)"
    if as_json:
        typer.echo(json.dumps({"model": name, "compiled": compiled, **result.to_dict()}))
    else:
        typer.echo(f"{name}{', compiled' if compiled else ''}: {result}")
