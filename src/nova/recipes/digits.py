"""The recipes of the small model that ships with the package: each part, and the whole chain."""

from __future__ import annotations

from nova.checkpoints.locate import SHIPPED
from nova.training.autoencoder import AutoencoderRun, AutoencoderSize
from nova.training.config import ObserveConfig, OptimizerConfig, WorldConfig
from nova.training.language import LanguageRun, LanguageSize
from nova.training.lora import LoraSettings
from nova.training.transformer import DigitsData, LatentData, TransformerRun, TransformerSize

ANY_SHARE = 2.0
"""A `mask_std` so wide that every share of tokens is nearly equally likely."""

_IMAGES = (
    *("a red 3", "a green 7", "a blue 5", "a white 1", "a yellow 8"),
    *("a large cyan 0 in the centre", "a small pink 2", "a red 4 and a blue 9"),
)
_CLIPS = (
    *("a red 3 moves right", "a green 7 moves up", "a blue 5 moves left", "a white 1 moves down"),
    *("a yellow 8 moves up and right", "a large cyan 0 stays still in the centre"),
    *("a small pink 2 moves quickly down", "a red 4 moves left and a blue 9 moves right"),
)


def _shown(prompts: tuple[str, ...]) -> ObserveConfig:
    """What a stage shows on the way: samples in fewer steps than the pipeline takes, and the loss of unseen ones."""
    return ObserveConfig(every=1000, prompts=prompts, steps=16, diffusion_steps=10, held_out=64)


def digits_autoencoder() -> AutoencoderRun:
    """The video autoencoder: 17 frames of 64x64 pixels become 5 latent frames of 8x8 cells with 8 channels.

    nova train digits-autoencoder --output runs/digits/autoencoder

    Two CPU cores with bfloat16 matrix units: about 2.7 steps a second when nothing else runs. Reconstructions of unseen
    clips: PSNR 29.6 dB, 20.2 dB over inked pixels.
    """
    return AutoencoderRun(
        steps=3000,
        crop_steps=1800,
        batch_size=4,
        checkpoint_every=100,
        log_every=10,
        optimizer=OptimizerConfig(
            learning_rate=2e-3, schedule="cosine", decay_fraction=0.6, warmup_steps=100, ema_decay=0.99
        ),
    )


def digits_text_encoder() -> LanguageRun:
    """The text encoder: a Phi of three layers and 128 numbers a token that has read the world's captions.

    nova train digits-text-encoder --output runs/digits/text_encoder
    """
    return LanguageRun(
        steps=1500,
        batch_size=64,
        checkpoint_every=500,
        log_every=10,
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=100, ema_decay=0.99),
    )


def digits_image() -> TransformerRun:
    """The transformer's first stage: images, the first frames of nothing yet.

    nova train digits-image --output runs/digits/initial autoencoder=… text_encoder=…

    Any share of tokens is known: a frame here has 16, and generation makes it one by one, so that most of the time
    more is known than the published training (at most 30 %) ever shows. Captions of images fit into 32 tokens.

    Two CPU cores with bfloat16 matrix units: about 4 steps a second, 23 minutes beside other work. The loss stays at
    0.5 for some 1,500 steps of colours and blots and then falls to 0.16 as strokes, digits and places are learned.
    """
    return TransformerRun(
        steps=5000,
        batch_size=64,
        model=TransformerSize(text_tokens=32),
        checkpoint_every=250,
        log_every=10,
        data=DigitsData(frames=1, clips=16384, hands=1, grid=8),
        observe=_shown(_IMAGES),
        mask_std=ANY_SHARE,
        mask_low=0.0,
        optimizer=OptimizerConfig(
            learning_rate=6e-4, schedule="cosine", decay_fraction=0.7, warmup_steps=100, ema_decay=0.998
        ),
    )


def digits_video() -> TransformerRun:
    """The transformer's second stage: clips of 17 frames, on the image stage's weights.

    nova train digits-video --output runs/digits autoencoder=… text_encoder=… initial=…

    Two CPU cores with bfloat16 matrix units: about 2.7 steps a second, 33 minutes beside other work. Motion comes last:
    the loss of later frames falls from 0.45 to 0.28 with the learning rate, and more steps would make it better.
    """
    return TransformerRun(
        steps=4400,
        batch_size=32,
        checkpoint_every=250,
        log_every=10,
        data=DigitsData(clips=10240, hands=1, grid=8),
        observe=_shown(_CLIPS),
        motion_dropout=0.5,
        mask_std=ANY_SHARE,
        mask_low=0.0,
        optimizer=OptimizerConfig(
            learning_rate=6e-4, schedule="cosine", decay_fraction=0.7, warmup_steps=100, ema_decay=0.998
        ),
    )


def digits() -> TransformerRun:
    """The whole small model: autoencoder, text encoder, images, then video, one after another in one folder.

    nova train digits --output runs/digits

    About an hour and a quarter on two CPU cores with bfloat16 matrix units. docs/images/digits.png shows what comes
    out: digits that can be read, in the colour, size and place that the prompt names; motion in its direction, less
    sure than the rest, and pairs of digits that sometimes run into each other.

    The fields of the earlier stages are those of `autoencoder`, `text_encoder` and `initial`, for example
    `initial.steps=100`.
    """
    return digits_video().model_copy(
        update={"autoencoder": digits_autoencoder(), "text_encoder": digits_text_encoder(), "initial": digits_image()}
    )


def digits_finetune() -> TransformerRun:
    """Full fine-tuning: the small model that ships, which knows one handwriting of each digit, is shown all of them.

    nova train digits-finetune --output runs/finetune

    Two CPU cores with bfloat16 matrix units: about five minutes (computed: the video stage sees 68 clips a second).
    """
    run = digits_video()
    optimizer = OptimizerConfig(learning_rate=1e-4, schedule="cosine", warmup_steps=50, ema_decay=0.99)
    data = run.data.model_copy(update={"clips": 2048, "hands": None})
    observe = run.observe.model_copy(update={"every": 200})
    changes = {"steps": 600, "initial": SHIPPED, "optimizer": optimizer, "data": data, "observe": observe}
    return run.model_copy(update=changes)


def digits_clips() -> TransformerRun:
    """Full fine-tuning of the small model on your clips: 17 frames of 64x64 pixels, as `nova prepare` makes them.

    nova prepare clips --output latents
    nova train digits-clips --output runs/clips data.folder=latents

    Two CPU cores with bfloat16 matrix units: about five minutes (computed: the video stage sees 68 clips a second).
    """
    run = digits_finetune()
    observe = run.observe.model_copy(update={"held_out": 0})
    return run.model_copy(update={"data": LatentData(folder="latents"), "observe": observe})


def digits_lora() -> TransformerRun:
    """LoRA: as digits-finetune, but what is trained are factors of rank 8 beside the weights, 4 % as many numbers.

    nova train digits-lora --output runs/lora

    runs/lora/model has the factors folded in, runs/lora/adapter holds them alone. It takes nearly as long as
    digits-finetune (computed: 70 % of the operations); gradients, average and optimizer take 4 % of the memory.
    """
    run = digits_finetune()
    optimizer = run.optimizer.model_copy(update={"learning_rate": 1e-3})
    return run.model_copy(update={"lora": LoraSettings(rank=8), "optimizer": optimizer})


def digits_tiny() -> TransformerRun:
    """The whole chain in miniature, to see how a run goes; what comes out is noise.

    nova train digits-tiny --output runs/tiny
    """
    world = WorldConfig(size=32, frames=5)
    size = TransformerSize(
        width=32,
        heads=2,
        temporal_layers=1,
        spatial_encoder_layers=1,
        spatial_decoder_layers=1,
        denoiser_width=32,
        denoiser_blocks=1,
        scale_shift_rank=4,
    )
    images = TransformerRun(
        steps=4,
        batch_size=2,
        checkpoint_every=2,
        log_every=1,
        data=DigitsData(size=32, frames=1, clips=8),
        model=size,
    )
    return TransformerRun(
        steps=4,
        batch_size=2,
        checkpoint_every=2,
        log_every=1,
        data=DigitsData(size=32, frames=5, clips=8),
        model=size,
        autoencoder=AutoencoderRun(
            steps=4,
            batch_size=1,
            checkpoint_every=2,
            log_every=1,
            world=world,
            model=AutoencoderSize(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4),
        ),
        text_encoder=LanguageRun(
            steps=4, batch_size=2, checkpoint_every=2, log_every=1, model=LanguageSize(width=16, layers=1, heads=2)
        ),
        initial=images,
    )
