"""Training of the transformer on latents: images first, then video from the image weights.

Latents are drawn anew at each step from moments encoded once. Of a sample's captions one is chosen by even chance;
its features come from the frozen text encoder, stored or worked out now. All of a sample's randomness follows from the
seed, the step and the sample's place in the batch.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from nova.autoencoders.adapter import Autoencoder
from nova.checkpoints.folder import Components, save_components
from nova.data.order import BatchOrder
from nova.data.samples import LatentSample
from nova.diffusion.process import Process
from nova.diffusion.scheduler import Scheduler, ddpm_scheduler, flow_scheduler
from nova.errors import DataError, UsageError
from nova.models.conditioning import TextCondition, text_rows
from nova.models.config import NovaConfig
from nova.models.nova import NovaTransformer
from nova.randomness import generator_for
from nova.training.autoencoder import AutoencoderRun
from nova.training.config import Config, ObserveConfig, RunConfig, WorldConfig
from nova.training.draws import DrawRules, Draws, draw
from nova.training.language import LanguageRun
from nova.training.lora import LoraSettings, add_lora
from nova.training.objective import losses
from nova.training.task import Sums, Task

DEFAULT_MOTION, DEFAULT_FRAME_RATE = 5.0, 12.0
"""The motion score and frame rate of a generation that asks for none."""


_CONDITIONS = ("text.", "label.", "motion.", "temporal.scale_shift.")
"""Parts that only some kinds of models have."""


class TransformerSize(Config):
    """The fields of `NovaConfig` that a run chooses.

    A `scale_shift_rank` of 0 is the layer without a bottleneck; None leaves the layer out. Images have none. The
    fields that are None by default follow from the data, the autoencoder and the text encoder.
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
    patch: int = Field(default=2, ge=1)
    classes: int | None = Field(default=None, ge=1)
    latent_frames: int | None = Field(default=None, ge=1)
    latent_height: int | None = Field(default=None, ge=1)
    latent_width: int | None = Field(default=None, ge=1)


class DigitsData(WorldConfig):
    """The first `clips` samples of the moving-digits world, encoded once into the run's folder."""

    kind: Literal["digits"] = "digits"
    clips: int = Field(default=16384, ge=1)


class LatentData(Config):
    """A folder of latent shards, as `nova.data.shards` writes them."""

    kind: Literal["latents"] = "latents"
    folder: str


class TransformerRun(RunConfig):
    """A run that trains a transformer.

    `autoencoder`, `text_encoder` and `initial`, the weights to start from, are each the folder of a finished run,
    a model's folder, or the run that makes them first, in a folder of the field's name inside this run's. None
    means: those of the run that this one is part of, or else of the model that ships with the package; for
    `initial`, random weights.

    Captions are replaced by the null condition with probability `caption_dropout`, motion scores by the pipeline's
    default with probability `motion_dropout`. The share of tokens to predict is drawn for each step, or for each
    sample as `mask_per` says, from a normal of mean 1 and `mask_std`, cut to [`mask_low`, 1] (paper section 3.3). The
    loss sees every token `repeats` times, with its own noise each. `first_weight` and `later_weight` multiply the
    loss of the first frame and the mean loss of the others. `context_noise` is the largest share of noise in the
    frames that condition later ones. The defaults are the published training's. With `lora`, its factors are all that
    is trained.

    `observe` says what the run shows of itself on the way.
    """

    kind: Literal["transformer"] = "transformer"
    model: TransformerSize = TransformerSize()
    data: Annotated[DigitsData | LatentData, Field(discriminator="kind")] = DigitsData()
    diffusion: Literal["flow", "ddpm"] = "flow"
    autoencoder: str | AutoencoderRun | None = None
    text_encoder: str | LanguageRun | None = None
    initial: str | TransformerRun | None = None
    lora: LoraSettings | None = None
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    motion_dropout: float = Field(default=0.0, ge=0, le=1)
    repeats: int = Field(default=4, ge=1)
    mask_std: float = Field(default=0.25, gt=0)
    mask_low: float = Field(default=0.7, ge=0, le=1)
    mask_per: Literal["step", "sample"] = "step"
    first_weight: float = Field(default=1.0, ge=0)
    later_weight: float = Field(default=1.0, ge=0)
    context_noise: float = Field(default=0.0, ge=0, le=1)
    observe: ObserveConfig = ObserveConfig()

    @property
    def rules(self) -> DrawRules:
        """How the run draws."""
        return DrawRules(self.repeats, self.caption_dropout, self.mask_std, self.mask_low, self.context_noise)


class Source(Protocol):
    """Where samples come from: buckets of samples with latents of one shape each."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples in each bucket."""

    @property
    def buckets(self) -> tuple[tuple[int, int, int, int], ...]:
        """Shape (2c t h w) of each bucket's moments."""

    def get(self, bucket: int, index: int) -> LatentSample:
        """A sample of a bucket. Raises DataError where it cannot be read."""

    def where(self, bucket: int, index: int) -> str:
        """Where a sample is, for messages; reads nothing."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The frozen parts that a transformer learns to work with. A class-conditional one has no text parts."""

    vae: nn.Module
    text_encoder: Any = None
    tokenizer: Any = None

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder behind its common face."""
        return Autoencoder(self.vae)


Encode = Callable[[Sequence[str]], list[Float[Tensor, "_ dim"]]]
"""Captions to text features."""


@dataclasses.dataclass(frozen=True)
class LatentBatch:
    """Scaled latents, what they are conditioned on, and the draws of the step."""

    latents: Float[Tensor, "b c t h w"]
    condition: Float[Tensor, "b l dim"] | Int[Tensor, " b"] | None
    """Text rows or class labels; None where the captions are yet to be encoded."""
    captions: tuple[str, ...]
    motion: Float[Tensor, " b"] | None
    """Mean pixels a frame; None for image models."""
    frame_rate: Float[Tensor, " b"] | None
    draws: Draws

    def to(self, device: torch.device) -> LatentBatch:
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return dataclasses.replace(
            self,
            latents=self.latents.to(device, non_blocking=True),
            condition=move(self.condition),
            motion=move(self.motion),
            frame_rate=move(self.frame_rate),
            draws=self.draws.to(device),
        )


class TransformerObjective(nn.Module):
    """The transformer with its loss: a batch to sums over its unknown tokens."""

    def __init__(
        self, model: NovaTransformer, process: Process, encode: Encode | None, first_weight: float, later_weight: float
    ) -> None:
        super().__init__()
        self.model = model
        self.process = process
        self.encode = encode
        self.weights = (first_weight, later_weight)

    def forward(self, batch: LatentBatch) -> Sums:
        """`loss`, and for clips its parts `first` and `later`, before they are weighted."""
        condition = self.condition(batch)
        found = losses(self.model, self.process, batch.latents, condition, batch.draws, batch.motion, batch.frame_rate)
        first_weight, later_weight = self.weights
        if found.later is None:
            return Sums({"loss": first_weight * found.first}, found.tokens)
        total = first_weight * found.first + later_weight * found.later
        return Sums({"loss": total, "first": found.first, "later": found.later}, found.tokens)

    @torch.no_grad()
    def condition(self, batch: LatentBatch) -> Tensor:
        """Text rows or labels of a batch; captions that come without features are encoded now."""
        if batch.condition is not None:
            return batch.condition
        assert self.encode is not None, "samples without text features need a text encoder"
        assert self.model.text is not None, "batches without rows have captions"
        return self.model.text.rows(self.encode(batch.captions))


def new_transformer(
    config: TransformerRun,
    latents: tuple[int, int, int, int],
    text_dim: int | None,
    initial: NovaTransformer | None,
) -> NovaTransformer:
    """The network of the run for `latents` (c t h w), with its first weights: `initial`'s, else random ones.

    An image model lacks what only video needs; that starts at random, except the scale-and-shift layer, whose last
    weights are zero. Raises UsageError for weights that don't fit.
    """
    channels, frames, height, width = latents
    fields = config.model.model_dump()
    rank = fields.pop("scale_shift_rank")
    fields["latent_frames"] = fields["latent_frames"] or frames
    fields["latent_height"] = fields["latent_height"] or height
    fields["latent_width"] = fields["latent_width"] or width
    scale_shift = rank is not None and fields["latent_frames"] > 1
    shape = NovaConfig(
        **fields,
        channels=channels,
        text_dim=None if config.model.classes is not None else text_dim,
        scale_shift=scale_shift,
        scale_shift_rank=rank or None if scale_shift else None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = NovaTransformer(shape)
    if initial is not None:
        known, own = initial.state_dict(), model.state_dict()
        _check_fit(own, known)
        model.load_state_dict({name: known.get(name, tensor) for name, tensor in own.items()})
    condition = model.text if model.label is None else model.label
    assert condition is not None  # a config has exactly one of the two
    condition.norm.requires_grad_(False)  # as in the published training
    return model if config.lora is None else add_lora(model, config.lora, config.seed)


def _check_fit(own: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
    """Refuse to start from weights of another network; what only one kind of condition needs may be missing."""
    for name in sorted(own.keys() | known.keys()):
        wanted, found = (list(tensors[name].shape) if name in tensors else None for tensors in (own, known))
        optional = name.startswith(_CONDITIONS) and None in (wanted, found)
        if wanted != found and not optional:
            raise UsageError(
                f"initial: {name} is {found or 'missing'}, the run's is {wanted or 'none'}; give a model of the same "
                "size, text encoder, autoencoder and kind of positions, or change `model`"
            )


def scheduler_for(config: TransformerRun) -> Scheduler:
    """The diffusion process of the run, as it is saved with the model."""
    return flow_scheduler() if config.diffusion == "flow" else ddpm_scheduler()


def transformer_task(
    config: TransformerRun,
    model: NovaTransformer,
    source: Source,
    autoencoder: Autoencoder,
    encode: Encode | None = None,
) -> Task[LatentBatch]:
    """`model` as the training loop takes it. `encode` is for samples that come without text features."""
    process = scheduler_for(config).training
    objective = TransformerObjective(model, process, encode, config.first_weight, config.later_weight)
    maker = BatchMaker(config, source, autoencoder, process, model.shape, _null_rows(model.text))
    return Task("video" if model.shape.is_video else "images", model, objective, maker.batch, maker.ids, maker.sample)


@dataclasses.dataclass(frozen=True)
class BatchMaker:
    """Makes the samples of a step into a batch, in whichever process data are loaded."""

    config: TransformerRun
    source: Source
    autoencoder: Autoencoder
    process: Process
    shape: NovaConfig
    null_rows: Float[Tensor, "l dim"] | None

    @property
    def order(self) -> BatchOrder:
        """Which samples make which batch."""
        return BatchOrder(self.source.counts, self.config.batch_size, self.config.seed)

    def ids(self, step: int, places: range) -> list[str]:
        """Where the samples at `places` of a step's batch are."""
        chosen = self.order.batch(step)
        return [self.source.where(chosen.bucket, chosen.ids[place]) for place in places]

    def sample(self, step: int) -> str:
        """What each of a step's samples is."""
        channels, frames, height, width = self.source.buckets[self.order.batch(step).bucket]
        return f"{frames} latent frames of {height} x {width} in {channels // 2} channels"

    def batch(self, step: int, places: range) -> LatentBatch:
        """The batch they make."""
        config, chosen = self.config, self.order.batch(step)
        samples = [self.source.get(chosen.bucket, chosen.ids[place]) for place in places]
        generators = [generator_for(config.seed, "sample", step, place) for place in places]
        moments = torch.stack([sample.moments.float() for sample in samples])
        shape = (moments.shape[1] // 2, *moments.shape[2:])
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        chance = [torch.rand(2, generator=generator).tolist() for generator in generators]
        texts = [int(caption * len(one.captions)) for one, (caption, _) in zip(samples, chance, strict=True)]
        if config.mask_per == "step":
            ratios = [config.rules.ratio(generator_for(config.seed, "mask", step))] * len(samples)
        else:
            ratios = [config.rules.ratio(generator) for generator in generators]
        motion = [
            DEFAULT_MOTION if sample.motion is None or silent < config.motion_dropout else sample.motion
            for sample, (_, silent) in zip(samples, chance, strict=True)
        ]
        rates = [DEFAULT_FRAME_RATE if sample.fps is None else sample.fps for sample in samples]
        return LatentBatch(
            self.autoencoder.latents(moments, noise),
            self._condition(samples, texts),
            tuple(sample.captions[text] for sample, text in zip(samples, texts, strict=True) if sample.captions),
            torch.tensor(motion) if self.shape.is_video else None,
            torch.tensor(rates) if self.shape.is_video else None,
            draw(self.process, config.rules, shape, self.shape.patch, ratios, generators),
        )

    def _condition(self, samples: Sequence[LatentSample], texts: Sequence[int]) -> Tensor | None:
        if self.null_rows is None:
            return torch.tensor([_label(sample, self.shape.classes) for sample in samples])
        features = [None if one.text is None else one.text[text] for one, text in zip(samples, texts, strict=True)]
        if any(feature is None for feature in features):
            return None
        return text_rows(self.null_rows, [feature.float() for feature in features if feature is not None])


def export_transformer(
    model: NovaTransformer, config: TransformerRun, inputs: Inputs, folder: Path
) -> dict[str, float]:
    """Write a whole model folder: transformer, scheduler and the frozen parts, in float16. Returns its size in MB."""
    halved = Components(
        transformer=copy.deepcopy(model).half(),
        scheduler=scheduler_for(config),
        vae=copy.deepcopy(inputs.vae).half(),
        text_encoder=copy.deepcopy(inputs.text_encoder).half() if inputs.text_encoder is not None else None,
        tokenizer=inputs.tokenizer,
    )
    save_components(halved, folder)
    return {"megabytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6}


def _null_rows(text: TextCondition | None) -> Float[Tensor, "l dim"] | None:
    """A copy that stays where data are loaded, whatever device the model goes to."""
    return None if text is None else text.null_rows[: text.tokens].detach().cpu().clone()


def _label(sample: LatentSample, classes: int | None) -> int:
    if sample.label is None or not 0 <= sample.label < (classes or 0):
        raise DataError(f"sample {sample.id}: label {sample.label}, expected 0 to {(classes or 0) - 1}; fix the data")
    return sample.label
