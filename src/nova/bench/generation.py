"""One model's generation, measured: how long it takes, how soon the first frame is there, and what the limit is.

Three things take turns in one run: latents alone, the whole call with the autoencoder, and the stream up to its first
frame. The speeds that the limit is made of (a matrix product, a copy) are measured in the same process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from nova.bench.limit import Work, least_work
from nova.bench.models import random_prompt
from nova.bench.turns import Spread, Turns, take_turns
from nova.machine import (
    bandwidth,
    device_name,
    forget_peak,
    matrix_product_flops,
    memory_now,
    memory_peak,
    seconds,
)
from nova.pipeline import NovaPipeline
from nova.pipeline.request import from_arguments

PROMPT = "a red 3 moves right"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is generated. Sizes are in pixels and pixel frames; None: what the model was trained on.

    `steps` and `diffusion_steps` win over the preset's; None leaves them to it.
    """

    frames: int | None = None
    height: int | None = None
    width: int | None = None
    preset: str = "exact"
    steps: int | None = None
    diffusion_steps: int | None = None
    batch: int = 1
    rounds: int = 3

    def arguments(self, pipe: NovaPipeline) -> dict[str, Any]:
        """The pipeline's arguments, with a generator of its own for every call."""
        device = pipe.device
        steps = {"num_inference_steps": self.steps, "num_diffusion_steps": self.diffusion_steps}
        return {
            **condition(pipe, self.batch),
            "num_frames": self.frames,
            "height": self.height,
            "width": self.width,
            "preset": self.preset,
            **{name: value for name, value in steps.items() if value is not None},
            "generator": torch.Generator("cpu" if device.type == "mps" else device).manual_seed(0),
        }


@dataclasses.dataclass(frozen=True)
class Result:
    """What was measured. Sizes are in pixels and pixel frames, bytes those of the device or of the process."""

    device: str
    dtype: str
    threads: int
    setting: Setting
    steps: int
    diffusion_steps: int
    parameters: int
    frames: int
    height: int
    width: int
    latents: Turns
    """Everything but the autoencoder."""
    pixels: Turns
    """The whole call."""
    first_frame: Turns
    """From the call until a picture is there."""
    weights: int | None
    peak: int | None
    work: Work
    matrix_product: float
    """Operations a second."""
    bandwidth: float
    """Bytes a second."""

    @property
    def made(self) -> int:
        """Pixel frames that a call makes."""
        return self.frames * self.setting.batch

    @property
    def limit(self) -> float:
        """Seconds that latents take at least on this machine."""
        return self.work.limit(self.matrix_product, self.bandwidth)

    @property
    def utilisation(self) -> float:
        """The least operations of a call per second it took, over the speed of a matrix product."""
        return self.work.flops / self.latents.seconds.median / self.matrix_product

    @property
    def times_the_limit(self) -> float:
        """Seconds of the latents over the fewest possible."""
        return self.latents.seconds.median / self.limit

    def rows(self) -> list[tuple[str, Spread | float | None]]:
        """The table: names and figures."""
        return [
            ("seconds", self.pixels.seconds),
            ("seconds without autoencoder", self.latents.seconds),
            ("seconds to the first frame", self.first_frame.seconds),
            ("the same twice (A/A)", self.latents.band),
            ("seconds of the first run", self.latents.first),
            ("frames a second", self.made / self.pixels.seconds.median),
            ("... without autoencoder", self.made / self.latents.seconds.median),
            ("peak memory, MB", None if self.peak is None else self.peak / 1e6),
            ("memory before, MB", None if self.weights is None else self.weights / 1e6),
            ("floor, TFLOP", self.work.flops / 1e12),
            ("matrix product, TFLOP/s", self.matrix_product / 1e12),
            ("copy, GB/s", self.bandwidth / 1e9),
            ("limit, seconds", self.limit),
            ("times the limit", self.times_the_limit),
            ("share of the matrix product", self.utilisation),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Every figure, ready for JSON."""
        derived = {name: getattr(self, name) for name in ("limit", "utilisation", "times_the_limit")}
        table = {name: dataclasses.asdict(row) if isinstance(row, Spread) else row for name, row in self.rows()}
        return {"table": table, **derived, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        setting = self.setting
        head = (
            f"{self.parameters / 1e6:.1f} M parameters, {self.frames} x {self.height} x {self.width}, batch "
            f"{setting.batch}, preset {setting.preset}, {self.steps} steps, {self.diffusion_steps} diffusion steps; "
            f"{self.dtype} on {self.device}, {self.threads} threads, {setting.rounds} rounds; median (least to most)"
        )
        return "\n".join([head, "", *(f"{name:<30}{_cell(figure)}" for name, figure in self.rows())])


def measure(pipe: NovaPipeline, setting: Setting) -> Result:
    """Measure a pipeline that is on its device. Raises UsageError for a size or length that the model cannot make.

    The limit is that of as many steps, all of them guided, as the preset takes.
    """
    device, dtype = pipe.device, pipe.transformer.dtype

    def timed(output_type: str, run: Callable[..., Any] = pipe) -> float:
        arguments = setting.arguments(pipe)
        return seconds(lambda: run(**arguments, output_type=output_type), device)

    shape, autoencoder = pipe.transformer.shape, pipe.autoencoder
    frames = setting.frames or autoencoder.frames(shape.latent_frames)
    height = setting.height or shape.latent_height * autoencoder.spatial_stride
    width = setting.width or shape.latent_width * autoencoder.spatial_stride
    request = from_arguments(**setting.arguments(pipe))
    _, latent_frames, *size = autoencoder.latent_shape(frames, height, width)
    before = memory_now(device)
    forget_peak(device)
    turns = take_turns(
        {
            "latents": lambda: timed("latent"),
            "pixels": lambda: timed("np"),
            "first_frame": lambda: timed("np", lambda **arguments: next(pipe.stream(**arguments))),
        },
        setting.rounds,
    )
    peak = memory_peak(device)
    work = least_work(
        pipe.transformer,
        frames=latent_frames,
        size=(size[0], size[1]),
        steps=request.num_inference_steps,
        diffusion_steps=request.num_diffusion_steps,
        batch=setting.batch,
    )
    return Result(
        device=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        setting=setting,
        steps=request.num_inference_steps,
        diffusion_steps=request.num_diffusion_steps,
        parameters=sum(weight.numel() for weight in pipe.transformer.parameters()),
        frames=frames,
        height=height,
        width=width,
        **turns,
        weights=before,
        peak=peak,
        work=work,
        matrix_product=matrix_product_flops(device, dtype),
        bandwidth=bandwidth(device),
    )


def condition(pipe: NovaPipeline, batch: int) -> dict[str, Any]:
    """What `batch` samples show, of the kind that the model takes."""
    shape = pipe.transformer.shape
    if shape.classes is not None:
        return {"class_labels": [number % shape.classes for number in range(batch)]}
    if pipe.text_encoder is None:
        return {"prompt_embeds": [random_prompt(shape)] * batch}
    return {"prompt": [PROMPT] * batch}


def _cell(figure: Spread | float | None) -> str:
    return "" if figure is None else str(figure) if isinstance(figure, Spread) else f"{figure:.4g}"
