"""The two sides of the comparison of generation: our pipeline, and the published one from the user's folder.

Both hold the same random weights, are given the same prompt features, and draw from one generator in the published
order. A side works in a process of its own (`workers`) and is asked by name for what its public methods do.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generate_cases import CASES, Case
from jaxtyping import Float
from published_code import PublishedCode
from torch import Tensor, nn
from workers import Memory

from nova.machine import bandwidth, forget_peak, matrix_product_flops, memory_now, memory_peak, seconds

Latents = Float[np.ndarray, "b c t h w"]

CHECKED_STEPS, CHECKED_FRAMES = 4, 2
"""Autoregressive steps and latent frames of the generation that is compared before any time is taken."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What both sides are told. `dtype` is that of the timed runs; `compile` concerns our side only."""

    name: str
    device: str
    dtype: str
    threads: int
    compile: bool = False

    @property
    def case(self) -> Case:
        """The case of this name."""
        return CASES[self.name]


class Side(ABC):
    """A pipeline that can be asked for. It begins in float32, where the sides are compared."""

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(setting.threads)
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32 in convolutions too
        self.setting, self.case = setting, setting.case
        self.device = torch.device(setting.device)
        self.shape = self.case.random.shape
        self._before = memory_now(self.device)
        self._made: Tensor | None = None
        self.build()

    def check(self) -> Latents:
        """Latents of a short generation."""
        return _array(self.latents(min(CHECKED_FRAMES, self.shape.latent_frames), CHECKED_STEPS))

    def forced(self, first: Latents) -> Latents:
        """The next frame's latents after those of a given first frame, all tokens in one set; an image's likewise."""
        self.cast(self.dtype)
        frames = min(2, self.shape.latent_frames)
        given = torch.from_numpy(first[:, :, 0]).to(self.device) if frames > 1 else None
        return _array(self.latents(frames, 1, given)[:, :, -1:])

    def start(self) -> None:
        """Turn to the precision of the timed runs."""
        self.cast(getattr(torch, self.setting.dtype))
        self._made = None
        self.forget()

    def forget(self) -> None:
        """Forget what was the most memory so far."""
        forget_peak(self.device)

    def speeds(self) -> tuple[float, float]:
        """Operations a second of a matrix product in the timed runs' precision, and bytes a second of a copy."""
        return matrix_product_flops(self.device, getattr(torch, self.setting.dtype)), bandwidth(self.device)

    def warm_up(self) -> float:
        """Seconds of the short generation."""
        return seconds(lambda: self.latents(min(CHECKED_FRAMES, self.shape.latent_frames), CHECKED_STEPS), self.device)

    def whole(self) -> float:
        """Seconds of the case's generation, up to its latents."""

        def run() -> None:
            self._made = self.latents(self.shape.latent_frames, self.case.steps)

        return seconds(run, self.device)

    def made(self) -> Latents:
        """Latents of the last whole generation."""
        assert self._made is not None  # asked for after `whole` only
        return _array(self._made)

    def decoding(self) -> float:
        """Seconds that the autoencoder takes for the latents of the last whole generation."""
        assert self._made is not None  # asked for after `whole` only
        return seconds(lambda: self.decode(self._made), self.device)  # type: ignore[arg-type]

    def memory(self) -> Memory:
        """Since `start` or `forget`."""
        return Memory(self._before, memory_peak(self.device))

    def generator(self) -> torch.Generator:
        """Of all draws of one generation."""
        return torch.Generator(self.device).manual_seed(0)

    @abstractmethod
    def build(self) -> None:
        """Make the pipeline."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The present precision."""

    @abstractmethod
    def cast(self, dtype: torch.dtype) -> None:
        """Turn its weights to a precision, and forget what it keeps between calls."""

    @abstractmethod
    def latents(self, frames: int, steps: int, first: Float[Tensor, "b c h w"] | None = None) -> Tensor:
        """Generate so many latent frames (b c t h w), the first of them given or not."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Tensor:
        """Pixels."""


class Ours(Side):
    """`NovaPipeline`."""

    def build(self) -> None:
        self.cast(torch.float32)

    @property
    def dtype(self) -> torch.dtype:
        return self.pipe.transformer.dtype

    def cast(self, dtype: torch.dtype) -> None:
        self.pipe: Any = None  # what was captured for its weights goes with it
        self.pipe = self.case.random.pipeline(self.device, dtype)
        if not self.setting.compile:
            self.pipe.pack()
        elif dtype == getattr(torch, self.setting.dtype):
            self.pipe.compile()

    def latents(self, frames: int, steps: int, first: Float[Tensor, "b c h w"] | None = None) -> Tensor:
        given = None if first is None else first.unsqueeze(2)
        return self.pipe(**self._arguments(frames, steps), latents=given, output_type="latent").frames

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Tensor:
        with torch.no_grad():
            return self.pipe.autoencoder.decode(latents)

    def pixels(self) -> float:
        """Seconds of a whole call, autoencoder included."""
        arguments = self._arguments(self.shape.latent_frames, self.case.steps)
        return seconds(lambda: self.pipe(**arguments, output_type="np"), self.device)

    def first_frame(self) -> float:
        """Seconds until the stream's first picture is there."""
        arguments = self._arguments(self.shape.latent_frames, self.case.steps)
        return seconds(lambda: next(self.pipe.stream(**arguments, output_type="np")), self.device)

    def _arguments(self, frames: int, steps: int) -> dict[str, Any]:
        return {
            "prompt_embeds": [self.case.random.prompt()],
            "num_frames": self.pipe.autoencoder.frames(frames),
            "num_inference_steps": steps,
            "num_diffusion_steps": self.case.diffusion_steps,
            "generator": self.generator(),
        }


class Published(Side):
    """The published pipeline, as it is called for generation."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.code = PublishedCode(folder)
        super().__init__(setting)

    def build(self) -> None:
        random = self.case.random
        network = self.code.network(random.shape, random.transformer(self.device).state_dict()).to(self.device).eval()
        made = self.code.module("pipelines.nova.pipeline_nova").NOVAPipeline
        self.pipe = made(transformer=network, scheduler=self.code.scheduler(random.scheduler().config))
        self.vae = self.code.autoencoder(random.vae(self.device)).to(self.device).eval()

    @property
    def dtype(self) -> torch.dtype:
        return self.pipe.transformer.dtype

    def cast(self, dtype: torch.dtype) -> None:
        for part in (self.pipe.transformer, self.vae):
            nn.Module.to(part, dtype)
        scheduler = self.code.scheduler(self.case.random.scheduler().config)
        self.pipe.transformer.sample_scheduler = self.pipe.scheduler = scheduler
        for module in self.pipe.transformer.modules():  # tables that it keeps in the precision of their first use
            for name in ("space_embed", "time_embed"):
                if getattr(module, name, None) is not None:
                    setattr(module, name, None)

    def latents(self, frames: int, steps: int, first: Float[Tensor, "b c h w"] | None = None) -> Tensor:
        return self.pipe(
            prompt_embeds=[self.case.random.prompt()],
            latents=None if first is None else [first.to(self.dtype)],
            max_latent_length=frames,
            num_inference_steps=steps,
            num_diffusion_steps=self.case.diffusion_steps,
            generator=self.generator(),
            output_type="latent",
            disable_progress_bar=True,
        ).frames

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Tensor:
        given = latents.clone() if self.shape.is_video else latents.squeeze(2).clone()  # it scales in place
        with torch.no_grad():
            return self.pipe.image_processor.decode_latents(self.vae, given)


def _array(latents: Tensor) -> Latents:
    return latents.float().cpu().numpy()
