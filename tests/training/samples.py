"""Samples of random latents in buckets, and a transformer's run so small that it learns from them in no time."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nova.autoencoders.video import VideoAutoencoder
from nova.data.samples import LatentSample
from nova.randomness import generator_for
from nova.training.config import OptimizerConfig
from nova.training.transformer import LatentData, TransformerRun, TransformerSize

TEXT_DIM = 16
SIZE = TransformerSize(
    width=32,
    heads=2,
    temporal_layers=1,
    spatial_encoder_layers=1,
    spatial_decoder_layers=1,
    denoiser_width=32,
    denoiser_blocks=1,
    text_tokens=8,
    scale_shift_rank=4,
)


@dataclass(frozen=True)
class Samples:
    """`counts` samples of each bucket, of `frames` latent frames of 4 channels and 4 x 4 cells, or more in height."""

    counts: tuple[int, ...] = (6,)
    frames: int = 2
    labels: bool = False

    @property
    def buckets(self) -> tuple[tuple[int, int, int, int], ...]:
        return tuple((8, self.frames, 4 + 4 * bucket, 4) for bucket in range(len(self.counts)))

    def get(self, bucket: int, index: int) -> LatentSample:
        generator = generator_for("sample", bucket, index)
        return LatentSample(
            id=self.where(bucket, index),
            moments=torch.randn(self.buckets[bucket], generator=generator).half(),
            captions=() if self.labels else ("a red 3",),
            label=index % 3 if self.labels else None,
            motion=None,
            fps=None,
            text=None if self.labels else (torch.randn(3, TEXT_DIM, generator=generator),),
        )

    def where(self, bucket: int, index: int) -> str:
        return f"{bucket}/{index}"


def latent_run(**changes: object) -> TransformerRun:
    """A run on such samples."""
    fields = {
        "steps": 4,
        "batch_size": 2,
        "checkpoint_every": 2,
        "log_every": 1,
        "trackers": (),
        "precision": "float32",
        "model": SIZE,
        "data": LatentData(folder="unused"),
        "optimizer": OptimizerConfig(learning_rate=3e-3),
    }
    return TransformerRun.model_validate(fields | changes)


def small_autoencoder() -> VideoAutoencoder:
    """4 channels, a stride of 8 pixels and 4 frames."""
    torch.manual_seed(0)
    return VideoAutoencoder(block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2).eval()
