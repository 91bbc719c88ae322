"""Training of the transformer on latents of the small world: images first, then video from the image weights.

Latents are drawn anew at each step from moments encoded once. Each caption is the short or the long one, by even
chance; its features come from the frozen text encoder. The motion condition is the clip's own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from nova.autoencoders.adapter import Autoencoder
from nova.checkpoints.folder import Components, save_components
from nova.diffusion.scheduler import Scheduler, ddpm_scheduler, flow_scheduler
from nova.errors import UsageError
from nova.models.conditioning import TextCondition
from nova.models.config import NovaConfig
from nova.models.nova import NovaTransformer
from nova.randomness import generator_for
from nova.text import encode_text
from nova.training.autoencoder import AutoencoderRun
from nova.training.config import Config, RunConfig
from nova.training.language import LanguageRun
from nova.training.latents import EncodedClips
from nova.training.objective import Draws, draw, losses
from nova.training.train import Task

_TEXT_BATCH = 64
DEFAULT_MOTION = 5.0
"""The motion score of a generation that asks for none."""


class TransformerSize(Config):
    """The fields of `NovaConfig` that a run chooses; the others follow from autoencoder, text encoder and world.

    A `scale_shift_rank` of 0 is the layer without a bottleneck; None leaves the layer out. Images have none.
    """

    width: int = Field(default=192, ge=4)
    heads: int = Field(default=3, ge=1)
    temporal_layers: int = Field(default=4, ge=1)
    spatial_encoder_layers: int = Field(default=3, ge=1)
    spatial_decoder_layers: int = Field(default=3, ge=1)
    denoiser_width: int = Field(default=256, ge=1)
    denoiser_blocks: int = Field(default=3, ge=1)
    text_tokens: int = Field(default=48, ge=1)
    scale_shift_rank: int | None = Field(default=24, ge=0)
    rotary: bool = False


class TransformerRun(RunConfig):
    """A run that trains a transformer.

    `autoencoder`, `text_encoder` and `initial`, the weights to start from, are each the folder of a finished run,
    a model's folder, or the run that makes them first, in a folder of the field's name inside this run's. None
    means: those of the run that this one is part of, or else of the model that ships with the package; for
    `initial`, random weights. The run sees `clips` clips of the world, over and over. Captions are replaced by the
    null condition with probability `caption_dropout`, motion scores by the pipeline's default with probability
    `motion_dropout`: digits never move that fast, so at the default the caption alone decides. A step's share of
    tokens to predict is drawn from a normal of mean 1 and `mask_std`, cut to [`mask_low`, 1].
    """

    kind: Literal["transformer"] = "transformer"
    model: TransformerSize = TransformerSize()
    diffusion: Literal["flow", "ddpm"] = "flow"
    autoencoder: str | AutoencoderRun | None = None
    text_encoder: str | LanguageRun | None = None
    initial: str | TransformerRun | None = None
    clips: int = Field(default=16384, ge=1)
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    motion_dropout: float = Field(default=0.5, ge=0, le=1)
    repeats: int = Field(default=4, ge=1)
    mask_std: float = Field(default=0.25, gt=0)
    mask_low: float = Field(default=0.7, ge=0, le=1)


@dataclass(frozen=True)
class Inputs:
    """The frozen parts that a transformer learns to work with."""

    vae: nn.Module
    text_encoder: Any
    tokenizer: Any

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder behind its common face."""
        return Autoencoder(self.vae)


@dataclass(frozen=True)
class LatentBatch:
    """Scaled latents, the text rows of their captions, and their motion in pixels a frame."""

    latents: Float[Tensor, "b c t h w"]
    rows: Float[Tensor, "b l dim"]
    motion: Float[Tensor, " b"]


def new_transformer(config: TransformerRun, inputs: Inputs, initial: NovaTransformer | None) -> NovaTransformer:
    """The network of the run with its first weights: `initial`'s where it has them, else random ones.

    An image model lacks what only video needs; that starts at random, except the scale-and-shift layer, whose last
    weights are zero.
    """
    size = config.world.size
    autoencoder = inputs.autoencoder
    channels, frames, height, width = autoencoder.latent_shape(config.world.frames, size, size)
    fields = config.model.model_dump()
    rank = fields.pop("scale_shift_rank")
    scale_shift = rank is not None and frames > 1
    shape = NovaConfig(
        **fields,
        latent_frames=frames,
        latent_height=height,
        latent_width=width,
        channels=channels,
        patch=15 // autoencoder.spatial_stride + 1,
        text_dim=inputs.text_encoder.config.hidden_size,
        scale_shift=scale_shift,
        scale_shift_rank=rank or None if scale_shift else None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = NovaTransformer(shape)
    if initial is not None:
        known = initial.state_dict()
        own = model.state_dict()
        model.load_state_dict({name: known.get(name, tensor) for name, tensor in own.items()})
    _text(model).norm.requires_grad_(False)  # as in the published training
    return model


def scheduler_for(config: TransformerRun) -> Scheduler:
    """The diffusion process of the run, as it is saved with the model."""
    return flow_scheduler() if config.diffusion == "flow" else ddpm_scheduler()


def transformer_task(
    config: TransformerRun, model: NovaTransformer, inputs: Inputs, clips: EncodedClips
) -> Task[LatentBatch]:
    """`model` as the training loop takes it."""
    autoencoder, process = inputs.autoencoder, scheduler_for(config).training
    features = _caption_features(inputs, [*clips.short, *clips.long], config.model.text_tokens)
    text, count = _text(model), len(clips.motion)

    def ids(step: int) -> list[int]:
        generator = generator_for(config.seed, "samples", step)
        return torch.randint(count, (config.batch_size,), generator=generator).tolist()

    def batch(step: int) -> LatentBatch:
        chosen = ids(step)
        moments = clips.moments[chosen].float()
        generator = generator_for(config.seed, "latents", step)
        shape = (len(chosen), moments.shape[1] // 2, *moments.shape[2:])
        latents = autoencoder.latents(moments, torch.randn(shape, generator=generator))
        long = torch.rand(len(chosen), generator=generator) < 0.5
        silent = torch.rand(len(chosen), generator=generator) < config.motion_dropout
        motion = clips.motion[chosen].masked_fill(silent, DEFAULT_MOTION)
        rows = [features[i + count if is_long else i] for i, is_long in zip(chosen, long.tolist(), strict=True)]
        return LatentBatch(latents, text.rows(rows), motion)

    def draws(batch: LatentBatch, step: int) -> Draws:
        b, _, t, h, w = batch.latents.shape
        generator = generator_for(config.seed, "draws", step)
        return draw(
            model,
            process,
            (b, t, h, w),
            generator,
            repeats=config.repeats,
            caption_dropout=config.caption_dropout,
            mask_std=config.mask_std,
            mask_low=config.mask_low,
        )

    def loss(network: nn.Module, batch: LatentBatch, step: int) -> Mapping[str, Tensor]:
        assert isinstance(network, NovaTransformer)
        motion = batch.motion if network.shape.is_video else None
        found = losses(network, process, batch.latents, batch.rows, draws(batch, step), motion)
        parts = {} if found.later is None else {"first": found.first, "later": found.later}
        return {"loss": found.total, **parts}

    return Task("video" if model.shape.is_video else "images", model, batch, loss, ids)


def export_transformer(
    model: NovaTransformer, config: TransformerRun, inputs: Inputs, folder: Path
) -> dict[str, float]:
    """Write a whole model folder: transformer, scheduler and the frozen parts, in float16. Returns its size in MB."""
    halved = Components(
        transformer=copy.deepcopy(model).half(),
        scheduler=scheduler_for(config),
        vae=copy.deepcopy(inputs.vae).half(),
        text_encoder=copy.deepcopy(inputs.text_encoder).half(),
        tokenizer=inputs.tokenizer,
    )
    save_components(halved, folder)
    return {"megabytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6}


def _text(model: NovaTransformer) -> TextCondition:
    if model.text is None:
        raise UsageError("model: takes class labels; the moving digits have captions, start from a text model")
    return model.text


@torch.no_grad()
def _caption_features(inputs: Inputs, captions: Sequence[str], max_tokens: int) -> list[Float[Tensor, "l dim"]]:
    """Text features of each caption, in float16; those of equal captions are one tensor."""
    distinct = list(dict.fromkeys(captions))
    rows = encode_text(inputs.tokenizer, inputs.text_encoder, distinct, max_tokens, _TEXT_BATCH)
    found = {caption: one.half() for caption, one in zip(distinct, rows, strict=True)}
    return [found[caption] for caption in captions]
