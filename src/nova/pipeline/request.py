"""What a caller asks of the pipeline: the arguments of `NovaPipeline.__call__` and `.stream`, as one frozen value."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from nova.errors import UsageError, nearest
from nova.generation.guidance import Guidance
from nova.generation.options import GenerationOptions
from nova.presets import preset_options

Picture = PIL.Image.Image | np.ndarray | Tensor


@dataclasses.dataclass(frozen=True)
class Request:
    """A generation in the caller's own terms. Sizes are in pixels, times in pixel frames."""

    prompt: str | Sequence[str] | None = None
    """What to show, for text-conditional models; several prompts make several outputs."""
    _: dataclasses.KW_ONLY
    negative_prompt: str | Sequence[str] | None = None
    """What guidance leads away from; one for all prompts or one for each. None: the null condition."""
    prompt_embeds: Tensor | Sequence[Tensor] | None = None
    """Text features in place of `prompt`: (b l dim), or one (l dim) per prompt."""
    negative_prompt_embeds: Tensor | Sequence[Tensor] | None = None
    """Text features in place of `negative_prompt`."""
    class_labels: int | Sequence[int] | None = None
    """What to show, for class-conditional models."""
    image: Picture | Sequence[Picture] | None = None
    """First frame of the video: one for all outputs or one for each prompt. Scaled and cut to the video's size."""
    video: Any | None = None
    """A clip to go on from, as images or an array (f h w 3): one for all outputs or one for each prompt."""
    num_frames: int | None = None
    """Pixel frames, given ones included. None: the trained length, or half of it more than a long clip."""
    height: int | None = None
    """None: the trained height, as for `width`."""
    width: int | None = None
    preset: str = "exact"
    """`exact`, `fast` or `draft`: a set of the options below (`nova.presets`), over which those given by name win."""
    num_inference_steps: int = 64
    """Autoregressive steps (sets of tokens) a frame."""
    num_diffusion_steps: int = 25
    """Denoising steps a token."""
    diffusion_order: int = 1
    """1: the published solver. 2: one that also uses the prediction before, and needs fewer steps; it draws no noise
    but the first."""
    guidance_scale: float = 5.0
    """How strongly the prompt is followed; 1 or less switches guidance off."""
    min_guidance_scale: float | None = None
    """Guidance rises from this to `guidance_scale` over a frame's sets. None: it is constant."""
    guidance_trunc: float = 0.0
    """Diffusion time (0 to 1000) below which guidance is off."""
    guidance_renorm: float = 1.0
    """Lowest factor by which guided predictions may be shrunk to their unguided norm; 1 never shrinks."""
    image_guidance_scale: float = 0.0
    """How strongly a frame follows the frames before it, as a guidance of its own."""
    guidance_start: float = 0.0
    """Guidance is off before this part (0 to 1) of a frame's sets, which then cost half."""
    guidance_end: float = 1.0
    """Guidance is off after this part (0 to 1) of a frame's sets."""
    motion_score: float = 5.0
    """Mean optical-flow distance in pixels a frame to aim at, for video models."""
    fps: float = 12.0
    """Frame rate that the model is told, for video models."""
    flow_shift: float | None = None
    """Moves diffusion steps towards noise, for flow-matching models. None: the model's own."""
    window_frames: int | None = None
    """Pixel frames that the model looks at together; longer videos slide this window, in bounded memory.
    None: all frames together, with time stretched over the trained range, as the published code does."""
    num_videos_per_prompt: int = 1
    """Outputs for each prompt, next to each other in the result."""
    generator: torch.Generator | Sequence[torch.Generator | int] | int | None = None
    """One generator draws for the whole batch, in the published order. A list of generators or seeds (or one seed n,
    meaning n, n + 1, ...) makes every output independent of the batch it is in."""
    latents: Tensor | None = None
    """Scaled latents (b c t h w) of given first frames, in place of `image` or `video`."""
    output_type: str = "pil"
    """`pil` (lists of images), `np` (uint8 b f h w c), `pt` (float [0, 1] b f c h w), `latent` (scaled, b c t h w)."""
    callback_on_step_end: Callable[[Any, int, int, dict[str, Any]], Any] | None = None
    """Called after each set as (pipeline, set counted over the video, latent frame, {"latents": frame so far});
    returning False cancels, and the frames finished so far are the result."""
    return_dict: bool = True
    """False returns a plain tuple."""

    def options(self, window: int | None) -> GenerationOptions:
        """The options of the generation itself, checked; `window` in latent frames."""
        guidance = Guidance(
            scale=self.guidance_scale,
            min_scale=self.min_guidance_scale,
            truncation=self.guidance_trunc,
            renorm=self.guidance_renorm,
            image_scale=self.image_guidance_scale,
            start=self.guidance_start,
            end=self.guidance_end,
        )
        return GenerationOptions(
            steps=self.num_inference_steps,
            diffusion_steps=self.num_diffusion_steps,
            guidance=guidance,
            flow_shift=self.flow_shift,
            window=window,
        )


def from_arguments(*args: Any, **arguments: Any) -> Request:
    """A request from a call's arguments and its preset's; a misspelt name is an error that suggests the right one."""
    known = inspect.signature(Request).parameters
    for name in arguments:
        if name not in known:
            raise UsageError(f"unknown argument {name!r}{nearest(name, known)}")
    if len(args) > 1:
        raise UsageError(f"{len(args)} positional arguments; only the prompt is positional, name the others")
    return Request(*args, **{**preset_options(arguments.get("preset", "exact")), **arguments})
