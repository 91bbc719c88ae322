"""The training loss, with all its randomness handed in (paper section 3.4).

    draws     = which tokens are known, diffusion times and noise, which captions are dropped
    condition = temporal(frames, prompt)                 all frames in one pass
    features  = spatial(known tokens, condition)         every frame on its own
    loss      = mean over unknown tokens of |denoiser(noisy token) - target|^2

Given the draws, the loss is a deterministic function: it can be tested, replayed and compared.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nova.diffusion.process import Process
from nova.layers.patches import patchify
from nova.masking import draw_mask_ratio, lowest, split_places
from nova.models.nova import NovaTransformer


@dataclasses.dataclass(frozen=True)
class Draws:
    """Everything random in one training step."""

    known: Bool[Tensor, "b t n"]
    """Tokens that the spatial encoder sees; equally many in every frame."""
    indices: Int[Tensor, "r b t n"]
    """Diffusion index of every token, for each repeat of the loss."""
    noise: Float[Tensor, "r b t n p"]
    """Noise added to every token, for each repeat."""
    dropped: Bool[Tensor, " b"]
    """Captions replaced by the null condition."""

    def to(self, device: torch.device) -> Draws:
        """The same draws on another device."""
        return Draws(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


def draw(
    model: NovaTransformer,
    process: Process,
    shape: tuple[int, int, int, int],
    generator: torch.Generator,
    *,
    repeats: int = 4,
    caption_dropout: float = 0.1,
    mask_std: float = 0.25,
    mask_low: float = 0.7,
) -> Draws:
    """Draw one step's randomness on the CPU for latents of `shape` (batch, latent frames, height, width).

    One mask ratio a step from a normal of mean 1 and `mask_std` cut to [`mask_low`, 1] (section 3.3); every frame has
    its own random subset of known tokens, every repeat its own time and noise per token. At least one token of a
    frame is unknown.
    """
    batch, frames, height, width = shape
    config = model.shape
    count = (height // config.patch) * (width // config.patch)
    ratio = draw_mask_ratio(generator, std=mask_std, low=mask_low)
    known = min(round((1 - ratio) * count), count - 1)
    tokens = (batch, frames, count)
    return Draws(
        known=lowest(torch.rand(tokens, generator=generator), known),
        indices=process.draw_indices((repeats, *tokens), generator),
        noise=torch.randn((repeats, *tokens, config.token_numbers), generator=generator),
        dropped=torch.rand(batch, generator=generator) < caption_dropout,
    )


@dataclasses.dataclass(frozen=True)
class Losses:
    """The loss of a step and its two parts."""

    first: Float[Tensor, ""]
    """Of the first frame (text to image), normalised so that it equals `later` when all frames are alike."""
    later: Float[Tensor, ""] | None
    """Of the frames that see earlier ones (image to image); None for images."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """What is minimised."""
        return self.first if self.later is None else self.first + self.later


def losses(
    model: NovaTransformer,
    process: Process,
    latents: Float[Tensor, "b c t h w"],
    condition: Tensor,
    draws: Draws,
    motion: Float[Tensor, " b"] | None = None,
    frame_rate: Float[Tensor, " b"] | None = None,
) -> Losses:
    """The losses of a batch of scaled latents; what the published code names loss_t2i and loss_i2i.

    `condition` are text rows (b l dim), as from `model.text.rows`, or class labels (b). Video models take `motion`
    scores and `frame_rate`s (12 where None). Dropped captions are replaced by the null condition here.
    """
    condition = drop_condition(model, condition, draws.dropped)
    if motion is not None and frame_rate is None:
        frame_rate = torch.full_like(motion, 12.0)
    per_token = token_losses(model, process, latents, model.prompt(condition, motion, frame_rate), draws)
    per_frame = per_token.sum(dim=(0, 2)) / per_token.numel()
    frames = len(per_frame)
    if frames == 1:
        return Losses(per_frame[0], None)
    return Losses(per_frame[0] * frames, per_frame[1:].sum() * (frames / (frames - 1)))


def drop_condition(model: NovaTransformer, condition: Tensor, dropped: Bool[Tensor, " b"]) -> Tensor:
    """Text rows or labels with the null condition in place of the dropped ones."""
    if model.label is not None:
        return condition.masked_fill(dropped, model.label.null_class)
    assert model.text is not None  # a model has exactly one of the two
    null = model.text.null_rows[: condition.shape[1]].to(condition)
    return torch.where(dropped[:, None, None], null, condition)


def token_losses(
    model: NovaTransformer,
    process: Process,
    latents: Float[Tensor, "b c t h w"],
    prompt: Float[Tensor, "b l width"],
    draws: Draws,
) -> Float[Tensor, "rb t u"]:
    """Mean squared error of every unknown token, repeats outermost; known tokens never reach the denoiser."""
    patch, (height, width) = model.shape.patch, latents.shape[-2:]
    frames = latents.transpose(1, 2)
    grid = (height // (2 * patch), width // (2 * patch))
    conditions = model.temporal(patchify(frames, 2 * patch), prompt, grid)

    tokens = patchify(frames, patch).flatten(0, 1)
    known, unknown = split_places(draws.known.flatten(0, 1))
    places = model.spatial.places((height // patch, width // patch), conditions.shape[2])
    features = model.spatial(tokens, known, conditions.flatten(0, 1).unsqueeze(0), places)[0]

    features = _take(features, unknown)
    repeated = unknown.expand(len(draws.noise), -1, -1)
    noise = _take(draws.noise.flatten(1, 2), repeated).to(latents.dtype)
    clean = _take(tokens, unknown).expand_as(noise)
    indices = draws.indices.flatten(1, 2).gather(-1, repeated)
    noisy = process.add_noise(clean, noise, indices)
    times = model.denoiser.times(process.times(indices))
    prediction = model.denoiser(noisy, times, model.denoiser.condition(features))
    error = (prediction.float() - process.target(clean, noise, indices).float()).square().mean(-1)
    return error.unflatten(1, frames.shape[:2]).flatten(0, 1)


def _take(tokens: Float[Tensor, "*lead n p"], index: Int[Tensor, "*lead u"]) -> Float[Tensor, "*lead u p"]:
    return tokens.gather(-2, index.unsqueeze(-1).expand(*index.shape, tokens.shape[-1]))
