"""Training of the video autoencoder on the small world: clips, single images, and crops of clips around a digit.

The loss compares pixels by square and by amount, and their differences between neighbours by amount: the square
finds the digits, the amounts make them sharp. Ink weighs more, because nine tenths of a frame are black. A small
Kullback-Leibler term keeps the latents near unit scale. Images and crops cost less than clips, so a batch has four
times as many of them; a run begins on crops alone, which teach strokes and colours in a fraction of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nova.autoencoders.video import VideoAutoencoder, sample_posterior
from nova.data.moving_digits import Sample, World
from nova.randomness import generator_for
from nova.training.config import Config, RunConfig, WorldConfig
from nova.training.task import Sums, Task

FIRST_LOG_VARIANCE = -6.0
TEST_CLIPS = 64
SCALE_CLIPS = 256


class AutoencoderSize(Config):
    """The fields of `VideoAutoencoder`'s config that a run chooses."""

    block_out_channels: tuple[int, ...] = (16, 32, 64, 64)
    layers_per_block: int = Field(default=1, ge=1)
    latent_channels: int = Field(default=8, ge=1)
    norm_num_groups: int = Field(default=8, ge=1)


class AutoencoderRun(RunConfig):
    """A run that trains a video autoencoder.

    The first `crop_steps` steps see crops: `crop_frames` frames of half the side. Of the others `image_share` see
    images, `crop_share` crops, and the rest whole clips, `batch_size` of them. `ink_weight` is how much more an
    inked pixel counts than a black one.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    world: WorldConfig = WorldConfig()
    model: AutoencoderSize = AutoencoderSize()
    crop_steps: int = Field(default=0, ge=0)
    crop_frames: int = Field(default=5, ge=1)
    image_share: float = Field(default=0.2, ge=0, le=1)
    crop_share: float = Field(default=0.3, ge=0, le=1)
    ink_weight: float = Field(default=6.0, ge=0)
    amount_weight: float = Field(default=0.1, ge=0)
    kl_weight: float = Field(default=5e-4, ge=0)


@dataclass(frozen=True)
class PixelBatch:
    """Pixels in [-1, 1] and the noise of the posterior's sample."""

    pixels: Float[Tensor, "b 3 f H W"]
    noise: Float[Tensor, "b c t h w"]

    def to(self, device: torch.device) -> PixelBatch:
        """The same batch on another device."""
        return PixelBatch(self.pixels.to(device), self.noise.to(device))


class AutoencoderObjective(nn.Module):
    """The autoencoder with its loss: a batch to sums over its samples."""

    def __init__(self, model: VideoAutoencoder, config: AutoencoderRun) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, batch: PixelBatch) -> Sums:
        """`loss` and its parts `square`, `amount`, `edge` and `kl`."""
        made, moments = self.model(batch.pixels, batch.noise)
        square, amount, edge = reconstruction_errors(made.float(), batch.pixels, self.config.ink_weight)
        divergence = kl_divergence(moments.float())
        total = square + self.config.amount_weight * (amount + edge) + self.config.kl_weight * divergence
        parts = {"loss": total, "square": square, "amount": amount, "edge": edge, "kl": divergence}
        count = len(batch.pixels)
        return Sums({name: count * value for name, value in parts.items()}, count)


def new_autoencoder(config: AutoencoderRun) -> VideoAutoencoder:
    """The network of the run with its first weights.

    The posterior starts narrow: at unit variance its noise would drown what the first latents say.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = VideoAutoencoder(**config.model.model_dump(), sample_size=config.world.size)
    with torch.no_grad():
        model.quant_conv.bias[config.model.latent_channels :] = FIRST_LOG_VARIANCE
    return model


def autoencoder_task(config: AutoencoderRun, model: VideoAutoencoder) -> Task[PixelBatch]:
    """`model` as the training loop takes it."""
    clips = World(config.world.size, config.world.frames, config.world.seed)
    images = World(config.world.size, 1, config.world.seed)

    def indices(step: int, places: range) -> list[int]:
        """Samples of the world: one for each place that holds a clip, four for others."""
        each = 1 if _kind(config, step) == "clips" else 4
        generator = generator_for(config.seed, "samples", step)
        drawn = torch.randint(len(clips), (config.batch_size * each,), generator=generator)
        return drawn[places.start * each : places.stop * each].tolist()

    def batch(step: int, places: range) -> PixelBatch:
        kind, chosen = _kind(config, step), indices(step, places)
        samples = [(images if kind == "images" else clips).sample(i) for i in chosen]
        first = places.start * (len(chosen) // len(places))
        generators = [generator_for(config.seed, "pixels", step, first + i) for i in range(len(chosen))]
        if kind == "crops":
            last = max(1, config.world.frames - config.crop_frames + 1)
            starts = [int(torch.randint(last, (), generator=generator)) for generator in generators]
            frames = [_crop(*one, config.crop_frames) for one in zip(samples, starts, strict=True)]
        else:
            frames = [sample.frames for sample in samples]
        pixels = to_pixels(frames)
        _, _, f, height, width = pixels.shape
        shape = (config.model.latent_channels, 1 + (f - 1) // 4, height // 8, width // 8)
        return PixelBatch(pixels, torch.stack([torch.randn(shape, generator=generator) for generator in generators]))

    def ids(step: int, places: range) -> list[str]:
        return [str(index) for index in indices(step, places)]

    return Task("autoencoder", model, AutoencoderObjective(model, config), batch, ids)


def reconstruction_errors(
    made: Float[Tensor, "b 3 f H W"], pixels: Float[Tensor, "b 3 f H W"], ink_weight: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Weighted means of the square and the amount of the error, and of the amount of its change between neighbours.

    A pixel weighs 1, plus `ink_weight` times its brightness or its neighbours' (3x3), whichever is most: the rim
    of a stroke counts as the stroke does. Neighbours are those in a row and in a column.
    """
    bright = (pixels.amax(dim=1, keepdim=True) + 1) / 2
    weight = 1 + ink_weight * F.max_pool3d(bright, (1, 3, 3), stride=1, padding=(0, 1, 1))
    weight = weight / weight.mean()
    error = made - pixels
    across, down = error.diff(dim=-1).abs(), error.diff(dim=-2).abs()
    edge = (weight[..., 1:] * across).mean() + (weight[..., 1:, :] * down).mean()
    return (weight * error.square()).mean(), (weight * error.abs()).mean(), edge


def kl_divergence(moments: Float[Tensor, "b 2*c t h w"]) -> Float[Tensor, ""]:
    """Mean over latents of the Kullback-Leibler divergence of the posterior from the standard normal."""
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30.0, 20.0)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def export_autoencoder(model: VideoAutoencoder, config: AutoencoderRun, folder: Path) -> dict[str, float]:
    """Set the scaling that gives latents mean 0 and variance 1, write the model, and report its quality.

    Returns PSNR in dB on the test split: over all pixels, and over inked ones and their neighbours.
    """
    world = World(config.world.size, config.world.frames, config.world.seed)
    latents = torch.cat([_latents(model, world, i) for i in range(len(world) - SCALE_CLIPS, len(world), 8)])
    deviation, mean = torch.std_mean(latents)
    model.register_to_config(scaling_factor=1 / float(deviation), shift_factor=float(mean))
    test = World(config.world.size, config.world.frames, config.world.seed, split="test")
    scores = torch.stack([_psnr(model, test.sample(i)) for i in range(TEST_CLIPS)]).mean(dim=0)
    model.save_pretrained(folder)
    return {"psnr": float(scores[0]), "ink_psnr": float(scores[1]), "latent_std": float(deviation)}


def to_pixels(clips: list[np.ndarray]) -> Float[Tensor, "b 3 f H W"]:
    """uint8 clips (f H W 3) as one batch of values in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)
    return stacked.float().div_(127.5).sub_(1)


def _kind(config: AutoencoderRun, step: int) -> Literal["images", "crops", "clips"]:
    if step < config.crop_steps:
        return "crops"
    place = float(torch.rand((), generator=generator_for(config.seed, "kind", step)))
    if place < config.image_share:
        return "images"
    return "crops" if place < config.image_share + config.crop_share else "clips"


def _crop(sample: Sample, start: int, count: int) -> np.ndarray:
    """`count` frames from `start` on, cut to the square of half the side around a digit, inside the frame."""
    size = sample.frames.shape[1]
    side = size // 2
    frames = sample.frames[start : start + count]
    box = sample.digits[-1].boxes[start + len(frames) // 2]
    left, top = (
        int(np.clip((low + high - side) / 2, 0, size - side)) for low, high in ((box[0], box[2]), (box[1], box[3]))
    )
    return frames[:, top : top + side, left : left + side]


@torch.no_grad()
def _latents(model: VideoAutoencoder, world: World, first: int) -> Float[Tensor, "8 c t h w"]:
    pixels = to_pixels([world.sample(i).frames for i in range(first, first + 8)])
    return sample_posterior(model.encode_window(pixels))


@torch.no_grad()
def _psnr(model: VideoAutoencoder, sample: Sample) -> Float[Tensor, "2"]:
    pixels = to_pixels([sample.frames])
    made, _ = model(pixels)
    error = (made.clamp(-1, 1) - pixels).square()
    ink = F.max_pool3d(pixels.amax(dim=1, keepdim=True) + 1, (1, 3, 3), stride=1, padding=(0, 1, 1)) > 0.1
    means = torch.stack([error.mean(), error[ink.expand_as(error)].mean()])
    return 10 * torch.log10(4 / means)
