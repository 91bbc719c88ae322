"""A request, checked and encoded for one model: the job that generation runs.

Everything is checked before anything is computed; then prompts and given frames are encoded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nova.autoencoders.adapter import Autoencoder
from nova.checkpoints.folder import Components
from nova.diffusion.process import Process
from nova.errors import UsageError, nearest
from nova.generation.options import GenerationOptions
from nova.masking import set_sizes
from nova.models.conditioning import Prompts, numbered
from nova.models.config import NovaConfig
from nova.pipeline import inputs
from nova.pipeline.outputs import OUTPUT_TYPES
from nova.pipeline.request import Request
from nova.randomness import Generators, normal
from nova.text import encode_text


@dataclasses.dataclass(frozen=True)
class Job:
    """What a request means for a model."""

    condition: Prompts
    """Text rows (r l dim) or labels (r); the first guidance branch has the prompts, the others the negative ones."""
    motion: float
    frame_rate: float
    size: tuple[int, int]
    """Latent height and width."""
    frames: int
    """Latent frames."""
    prefix: Float[Tensor, "b c t h w"] | None
    """Scaled latents of given first frames."""
    process: Process
    """The diffusion process, with the solver asked for."""
    options: GenerationOptions
    generators: Generators
    device: torch.device
    """Where the model runs. diffusers searches all parts for it, which takes longer than a small model's step."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """What a request will make of a model, known before anything is loaded or computed."""

    frames: int
    """Pixel frames, given ones included."""
    height: int
    width: int
    sets: int
    """Sets of tokens to make, over all frames."""


def planned_size(config: NovaConfig, autoencoder: Autoencoder, request: Request) -> Planned:
    """What `request` will make of a model; raises UsageError for frames or a size that it cannot make."""
    height, width = inputs.frame_size(request.height, request.width, config, autoencoder)
    clips = _given_clips(config, autoencoder, request)
    frames = _frames(config, autoencoder, request, clips)
    given = 0 if clips is None else inputs.latent_frames(len(clips[0]), config, autoencoder)
    stride = config.patch * autoencoder.spatial_stride
    sets = len(set_sizes((height // stride) * (width // stride), request.num_inference_steps))
    return Planned(autoencoder.frames(frames), height, width, (frames - given) * sets)


def prepare(parts: Components, request: Request, device: torch.device) -> Job:
    """Check `request` and encode it with the `parts` of a model that runs on `device`."""
    config, autoencoder = parts.transformer.shape, Autoencoder(parts.vae)
    if request.output_type not in OUTPUT_TYPES:
        raise UsageError(f"output_type: {request.output_type!r}{nearest(str(request.output_type), OUTPUT_TYPES)}")
    stride = autoencoder.spatial_stride
    height, width = inputs.frame_size(request.height, request.width, config, autoencoder)
    size = (height // stride, width // stride)
    clips = _given_clips(config, autoencoder, request)
    frames = _frames(config, autoencoder, request, clips)
    window = request.window_frames and inputs.latent_frames(request.window_frames, config, autoencoder)
    options = request.options(window)
    process = parts.scheduler.sampling.of_order(request.diffusion_order)
    process.table(options.diffusion_steps, options.flow_shift)
    motion = inputs.scalar(request.motion_score, "motion_score", 0, 1000)
    frame_rate = inputs.scalar(request.fps, "fps", 0.1, 1000)
    copies = request.num_videos_per_prompt
    if not isinstance(copies, int) or copies < 1:
        raise UsageError(f"num_videos_per_prompt: {copies!r}; use a whole number of at least 1")
    prompts = _count(parts, request)
    generators = inputs.generators(request.generator, prompts * copies)
    if clips is not None:
        inputs.spread(clips, prompts, "image" if request.image is not None else "video", "prompts")
    given_latents = _given_latents(parts, request, prompts, size, frames)

    condition = _condition(parts, request, options.guidance.branches, copies)
    prefix = None
    if clips is not None:
        pixels = [inputs.fit(clip, height, width).to(device) for clip in clips]
        prefix = _encode(autoencoder, pixels, generators, prompts, copies)
    elif given_latents is not None:
        prefix = given_latents.repeat_interleave(copies, dim=0)
    return Job(
        condition=condition,
        motion=motion,
        frame_rate=frame_rate,
        size=size,
        frames=frames,
        prefix=prefix,
        process=process,
        options=options,
        generators=generators,
        device=device,
    )


def _count(parts: Components, request: Request) -> int:
    """Number of prompts; there must be exactly one source of them, of the model's kind."""
    config = parts.transformer.shape
    sources = {name: getattr(request, name) for name in ("prompt", "prompt_embeds", "class_labels")}
    wanted = ("class_labels",) if config.text_dim is None else ("prompt", "prompt_embeds")
    found = [name for name, value in sources.items() if value is not None]
    if len(found) != 1 or found[0] not in wanted:
        kind = "class" if config.text_dim is None else "text"
        have = " and ".join(found) or "nothing"
        raise UsageError(f"{have} given; this {kind}-conditional model takes {' or '.join(wanted)}")
    if config.classes is not None:
        return len(inputs.labels(request.class_labels, config.classes))
    if request.prompt_embeds is not None:
        count = len(inputs.embeddings(request.prompt_embeds, "prompt_embeds", config))
    else:
        if parts.text_encoder is None or parts.tokenizer is None:
            raise UsageError("prompt: this pipeline has no text encoder; give prompt_embeds")
        count = len(inputs.texts(request.prompt, "prompt"))
    if request.negative_prompt is not None and request.negative_prompt_embeds is not None:
        raise UsageError("negative_prompt and negative_prompt_embeds: give one of the two")
    if request.negative_prompt is not None:
        inputs.spread(inputs.texts(request.negative_prompt, "negative_prompt"), count, "negative_prompt", "prompts")
    if request.negative_prompt_embeds is not None:
        rows = inputs.embeddings(request.negative_prompt_embeds, "negative_prompt_embeds", config)
        inputs.spread(rows, count, "negative_prompt_embeds", "prompts")
    return count


def _given_clips(
    config: NovaConfig, autoencoder: Autoencoder, request: Request
) -> list[UInt8[np.ndarray, "f h w 3"]] | None:
    """Given first frames, as clips whose length the autoencoder's stride divides; the end of a clip is kept."""
    named = [name for name in ("image", "video", "latents") if getattr(request, name) is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)}: give one of them")
    if named and not config.is_video:
        raise UsageError(f"{named[0]}: this is an image model and cannot go on from given frames; leave it out")
    if request.image is not None:
        return inputs.image_frames(request.image)
    if request.video is None:
        return None
    clips = inputs.video_frames(request.video)
    if len({len(clip) for clip in clips}) > 1:
        raise UsageError("video: clips of different lengths; give clips of one length")
    kept = len(clips[0]) - (len(clips[0]) - 1) % autoencoder.temporal_stride
    return [clip[-kept:] for clip in clips]


def _frames(config: NovaConfig, autoencoder: Autoencoder, request: Request, clips: list[Any] | None) -> int:
    """Latent frames to make, given ones included."""
    known = 0 if clips is None else inputs.latent_frames(len(clips[0]), config, autoencoder)
    if isinstance(request.latents, Tensor) and request.latents.ndim == 5:
        known = request.latents.shape[2]
    if request.num_frames is None:
        more = known + max(1, config.latent_frames // 2) if known > 1 else 0
        return max(config.latent_frames, more)
    frames = inputs.latent_frames(request.num_frames, config, autoencoder)
    if known >= frames:
        given, least = autoencoder.frames(known), autoencoder.frames(known + 1)
        raise UsageError(f"num_frames: {request.num_frames}, but {given} frames are given; use at least {least}")
    return frames


def _given_latents(
    parts: Components, request: Request, prompts: int, size: tuple[int, int], frames: int
) -> Float[Tensor, "b c t h w"] | None:
    latents, channels = request.latents, parts.transformer.shape.channels
    if latents is None:
        return None
    shape = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
    if not isinstance(shape, tuple) or len(shape) != 5 or (shape[1], *shape[3:]) != (channels, *size):
        raise UsageError(f"latents: {shape}; give a tensor (b {channels} t {size[0]} {size[1]})")
    if shape[0] not in (1, prompts) or shape[2] >= frames:
        raise UsageError(f"latents: {shape} for {prompts} prompts and {frames} latent frames; give fewer frames")
    return latents.float().expand(prompts, -1, -1, -1, -1)


def _condition(parts: Components, request: Request, branches: int, copies: int) -> Prompts:
    """Labels or text rows of all outputs: the prompt's in the first branch, those of the negative one in the others.

    Rows are shared within a branch only: an output has as many alone as it has in a batch.
    """
    model = parts.transformer
    prompts = _prompts(parts, request)
    different = numbered(prompts)
    index = [[different[one] for one in prompts]]
    rows = list(different)
    if branches > 1:
        negative = inputs.spread(_negative_prompts(parts, request), len(prompts), "negative_prompt", "prompts")
        different = numbered(negative)
        index += [[len(rows) + different[one] for one in negative]] * (branches - 1)
        rows += different
    return Prompts(
        torch.tensor(rows) if model.text is None else model.text.rows(rows),
        tuple(tuple(row for row in branch for _ in range(copies)) for branch in index),
    )


def _prompts(parts: Components, request: Request) -> list[Any]:
    """The label or the text features of every prompt; a text that comes up again has the same tensor, not its equal."""
    config = parts.transformer.shape
    if config.classes is not None:
        return inputs.labels(request.class_labels, config.classes)
    if request.prompt_embeds is not None:
        return inputs.embeddings(request.prompt_embeds, "prompt_embeds", config)
    return _features(parts, inputs.texts(request.prompt, "prompt"))


def _negative_prompts(parts: Components, request: Request) -> list[Any]:
    """The same for negative prompts, of which there is one or as many as prompts; the null prompt if none is given."""
    model = parts.transformer
    if model.label is not None:
        return [model.label.null_class]
    if request.negative_prompt_embeds is not None:
        return inputs.embeddings(request.negative_prompt_embeds, "negative_prompt_embeds", model.shape)
    if request.negative_prompt is not None:
        return _features(parts, inputs.texts(request.negative_prompt, "negative_prompt"))
    assert model.text is not None  # a model has exactly one of the two
    return [model.text.null_rows[:0]]


def _features(parts: Components, prompts: list[str]) -> list[Float[Tensor, "_ dim"]]:
    assert parts.tokenizer is not None  # a text model has both
    assert parts.text_encoder is not None
    return encode_text(parts.tokenizer, parts.text_encoder, prompts, parts.transformer.shape.text_tokens)


def _encode(
    autoencoder: Autoencoder,
    clips: list[Float[Tensor, "1 3 f h w"]],
    generators: Generators,
    prompts: int,
    copies: int,
) -> Float[Tensor, "b c t h w"]:
    """Scaled latents of the given frames of every output.

    Each generator of a list draws its own sample of the posterior; a single one draws one sample for each clip, as
    the published code does.
    """
    moments = torch.cat([autoencoder.encode(clip) for clip in clips])
    own = isinstance(generators, Sequence)
    if own:
        moments = moments.expand(prompts, -1, -1, -1, -1).repeat_interleave(copies, dim=0)
    shape = (len(moments), moments.shape[1] // 2, *moments.shape[2:])
    latents = autoencoder.latents(moments, normal(shape, generators, moments.device))
    return latents if own else latents.expand(prompts, -1, -1, -1, -1).repeat_interleave(copies, dim=0)
