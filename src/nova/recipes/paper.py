"""The training stages of the paper at its three sizes (Deng et al. 2024, section 4.1; published configurations).

Text to image grows from 256 to 512 to 1024 pixels. Text to video starts from an image model that has the video model's
autoencoder, diffusion process and denoising MLP. A size is `0.3B`, `0.6B` or `1.4B`; its shape is
`nova.models.config.published_size`.

Published for all stages: AdamW with betas 0.9 and 0.95 and weight decay 0.02; a constant learning rate, 1e-4 for each
256 samples of a batch; weights averaged every 100 steps; a tenth of the captions dropped; 0.7 to 1 of the tokens
predicted, each with 4 noises; bfloat16. The published files for 1024 pixels and for video say 1e-4 whatever the batch:
`optimizer.learning_rate=1e-4`. The file for video leaves out the scale-and-shift layer; ours keeps it, with rank 24 as
in the paper: `model.scale_shift_rank=null` leaves it out. Our own are the clipping of gradients at norm 1 (published:
none) and the warm-up of the stage that starts from random weights.

A stage looks for the model of the stage before it where the command of that stage writes it.
Costs are computed, not measured: 3 × `nova.models.flops.training_flops` at half of the 790 TFLOP/s that matrix products
reach on one H200, with text features stored in the shards. In parts of `micro_batch` samples every stage takes less
than 80 GB of a device (computed). `nova train NAME --dry-run` computes both for the machine it runs on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Literal

from nova.models.config import NovaConfig, published_size
from nova.training.config import OptimizerConfig
from nova.training.transformer import LatentData, TransformerRun, TransformerSize

SIZES = ("0.3B", "0.6B", "1.4B")
VIDEO_FRAMES, VIDEO_HEIGHT, VIDEO_WIDTH = 9, 480, 768
"""Latent frames of 33 frames, and pixels."""
CLASSES = 1000

_SD, _VIDEO = "BAAI/nova-d48w1024-sd512", "BAAI/nova-d48w1024-osp480"
_SDXL = {
    "0.3B": "BAAI/nova-d48w768-sdxl1024",
    "0.6B": "BAAI/nova-d48w1024-sdxl1024",
    "1.4B": "BAAI/nova-d48w1536-sdxl1024",
}
"""Published models, for their autoencoders and text encoder."""
_UNTRAINED = ("temporal.embed", "temporal.time")
"""What an image model has but does not need; frozen in the published image stages."""


@dataclasses.dataclass(frozen=True)
class _Stage:
    """A stage's batches, of which a device takes `micro_batch` samples at a time, and their number."""

    batch_size: int
    micro_batch: int
    steps: int
    warmup_steps: int = 0
    ema_decay: float = 0.98
    ema_every: int = 100


_IMAGES = {
    256: _Stage(4096, 32, 300_000, warmup_steps=5_000),
    512: _Stage(2048, 16, 150_000),
    1024: _Stage(1024, 4, 30_000),
}
_BEFORE = {512: 256, 1024: 512}
"""Pixels of the image stage whose model an image stage goes on with."""
_CLIPS = _Stage(512, 4, 80_000, ema_decay=0.97)
_LABELLED = _Stage(2048, 16, 250_000, warmup_steps=62_500, ema_decay=0.9999, ema_every=1)


def text_to_image(size: str, pixels: int) -> TransformerRun:
    """Text to image at 256, 512 or 1024 pixels.

    nova train t2i-256-0.6b --output runs/t2i-256-0.6b data.folder=data/images-256
    nova train t2i-512-0.6b --output runs/t2i-512-0.6b data.folder=data/images-512
    nova train t2i-1024-0.6b --output runs/t2i-1024-0.6b data.folder=data/images-1024

    H200 days (computed): 23, 20 and 10 for 0.3B; 40, 34 and 16 for 0.6B; 89, 73 and 33 for 1.4B.
    Published: GenEval 0.75 and DPG-Bench 81.76 of 0.6B at 512 pixels after 16 million image-text pairs; 0.67, 0.69
    and 0.71 and 80.60, 82.25 and 83.01 of the three sizes at 1024 pixels after 600 million. Not repeated here.
    """
    model = published_size(size, height=pixels, width=pixels)
    source = _SDXL[size] if pixels == 1024 else _SD
    return _image_run(model, pixels, f"t2i-{{}}-{size.lower()}", f"data/images-{pixels}", source, "flow")


def video_images(size: str, pixels: int) -> TransformerRun:
    """The images that a video model starts from, at 256 and 512 pixels.

    nova train t2v-images-256-0.6b --output runs/t2v-images-256-0.6b data.folder=data/video-images-256
    nova train t2v-images-512-0.6b --output runs/t2v-images-512-0.6b data.folder=data/video-images-512

    The stages of `text_to_image` with the video model's autoencoder, process and denoising MLP; an image is encoded as
    a clip of one frame. They cost as much as those, within a tenth (computed).
    """
    video = published_size(size, height=pixels, width=pixels, latent_frames=VIDEO_FRAMES)
    model = dataclasses.replace(video, latent_frames=1, scale_shift=False, scale_shift_rank=None)
    return _image_run(model, pixels, f"t2v-images-{{}}-{size.lower()}", f"data/video-images-{pixels}", _VIDEO, "ddpm")


def text_to_video(size: str) -> TransformerRun:
    """Text to 33 frames of 480 × 768 pixels, every second frame of the source, with motion scores.

    nova train t2v-480-0.6b --output runs/t2v-480-0.6b data.folder=data/videos-480

    `initial=BAAI/nova-d48w1024-osp480` goes on from the published 0.6B model instead. The published file has batches
    of 384 for 60,000 steps. H200 days (computed): 36 for 0.3B, 54 for 0.6B, 102 for 1.4B.
    Published: VBench 80.12 of 0.6B after 20 million video-text pairs. Not repeated here.
    """
    model = published_size(size, height=VIDEO_HEIGHT, width=VIDEO_WIDTH, latent_frames=VIDEO_FRAMES)
    before = f"runs/t2v-images-512-{size.lower()}"
    run = _run(model, _CLIPS, "data/videos-480", _VIDEO, before, "ddpm")
    return run.model_copy(update={"recompute": "blocks"})


def class_to_image(size: str) -> TransformerRun:
    """One of ImageNet's 1000 classes to an image of 256 pixels.

    nova train c2i-256-0.3b --output runs/c2i-256-0.3b data.folder=data/imagenet-256

    NOVA's class-to-image training is not published. These are the numbers of MAR (Li et al. 2024), whose masks and
    loss NOVA took over: 400 epochs in batches of 2048, the first 100 of them to warm up, weights averaged every step.
    H200 days (computed): 7 for 0.3B, 12 for 0.6B, 26 for 1.4B. No result is known.
    """
    model = published_size(size, height=256, width=256, classes=CLASSES)
    run = _run(model, _LABELLED, "data/imagenet-256", _SD, None, "flow")
    return run.model_copy(update={"freeze": _UNTRAINED, "text_encoder": None})


def recipes() -> dict[str, Callable[[], TransformerRun]]:
    """All stages at all sizes, by the names they have on the command line."""
    named: dict[str, Callable[[], TransformerRun]] = {}
    for size in SIZES:
        small = size.lower()
        named |= {f"t2i-{pixels}-{small}": partial(text_to_image, size, pixels) for pixels in _IMAGES}
        named |= {f"t2v-images-{pixels}-{small}": partial(video_images, size, pixels) for pixels in (256, 512)}
        named |= {f"t2v-480-{small}": partial(text_to_video, size), f"c2i-256-{small}": partial(class_to_image, size)}
    return named


def _image_run(
    model: NovaConfig, pixels: int, names: str, data: str, source: str, diffusion: Literal["flow", "ddpm"]
) -> TransformerRun:
    """An image stage, from the one before it; `names` with its pixels put in is the name of a stage."""
    before = f"runs/{names.format(_BEFORE[pixels])}" if pixels in _BEFORE else None
    return _run(model, _IMAGES[pixels], data, source, before, diffusion).model_copy(update={"freeze": _UNTRAINED})


def _run(
    model: NovaConfig,
    stage: _Stage,
    data: str,
    source: str,
    initial: str | None,
    diffusion: Literal["flow", "ddpm"],
) -> TransformerRun:
    """What all stages have in common. `source` is the model whose autoencoder and text encoder are taken."""
    return TransformerRun(
        steps=stage.steps,
        batch_size=stage.batch_size,
        micro_batch=stage.micro_batch,
        seed=1337,
        workers=8,
        checkpoint_every=5_000,
        log_every=20,
        model=TransformerSize(**{name: getattr(model, name) for name in TransformerSize.model_fields}),
        data=LatentData(folder=data),
        diffusion=diffusion,
        autoencoder=source,
        text_encoder=source,
        initial=initial,
        optimizer=OptimizerConfig(
            learning_rate=1e-4 * stage.batch_size / 256,
            warmup_steps=stage.warmup_steps,
            ema_decay=stage.ema_decay,
            ema_every=stage.ema_every,
        ),
    )
