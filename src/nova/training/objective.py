"""The training loss, with all its randomness handed in (paper section 3.4).

    draws     = which tokens are known, diffusion times and noise, which captions are dropped
    condition = temporal(frames, prompt)                 all frames in one pass
    features  = spatial(known tokens, condition)         every frame on its own
    loss      = mean over unknown tokens, and repeats, of |denoiser(noisy token) - target|^2

Given the draws, the loss is a deterministic function: it can be tested, replayed and compared. What a batch gives
are sums and the number of tokens they are over, so that a mean over many batches and machines is exact.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nova.diffusion.process import Process
from nova.layers.patches import patchify
from nova.models.nova import NovaTransformer
from nova.training.draws import Draws


@dataclasses.dataclass(frozen=True)
class TokenErrors:
    """Mean squared error of every unknown token, and where the token is."""

    errors: Float[Tensor, "r u"]
    """For each repeat of the loss."""
    frames: Int[Tensor, " u"]
    """Latent frame of each token."""


@dataclasses.dataclass(frozen=True)
class Losses:
    """Sums of a batch, over its unknown tokens and the mean of the repeats, and what makes them means."""

    first: Float[Tensor, ""]
    """Of the first frame (text to image)."""
    later: Float[Tensor, ""] | None
    """Of the frames that see earlier ones (image to image), divided by their number; None for images."""
    tokens: float
    """Unknown tokens of one frame, over the samples; all frames of a sample have equally many."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """The published objective: twice the mean over all frames when all frames are alike."""
        both = self.first if self.later is None else self.first + self.later
        return both / self.tokens


def losses(
    model: NovaTransformer,
    process: Process,
    latents: Float[Tensor, "b c t h w"],
    condition: Tensor,
    draws: Draws,
    motion: Float[Tensor, " b"] | None = None,
    frame_rate: Float[Tensor, " b"] | None = None,
) -> Losses:
    """The losses of a batch of scaled latents; as means, what the published code names loss_t2i and loss_i2i.

    `condition` are text rows (b l dim), as from `model.text.rows`, or class labels (b). Video models take `motion`
    scores and `frame_rate`s (12 where None). Dropped captions are replaced by the null condition here.
    """
    found = token_errors(model, process, latents, condition, draws, motion, frame_rate)
    per_token = found.errors.mean(dim=0)
    frames = latents.shape[2]
    tokens = per_token.numel() / frames
    if frames == 1:
        return Losses(per_token.sum(), None, tokens)
    first = torch.where(found.frames == 0, per_token, 0).sum()
    return Losses(first, (per_token.sum() - first) / (frames - 1), tokens)


def token_errors(
    model: NovaTransformer,
    process: Process,
    latents: Float[Tensor, "b c t h w"],
    condition: Tensor,
    draws: Draws,
    motion: Float[Tensor, " b"] | None = None,
    frame_rate: Float[Tensor, " b"] | None = None,
) -> TokenErrors:
    """Errors of the unknown tokens; known tokens never reach the denoiser. Arguments as of `losses`."""
    patch, (height, width) = model.shape.patch, latents.shape[-2:]
    frames = latents.transpose(1, 2)
    count = frames.shape[1]
    if motion is not None and frame_rate is None:
        frame_rate = torch.full_like(motion, 12.0)
    tokens = patchify(frames, patch).flatten(0, 1)
    per_frame = tokens.shape[1]
    # What may ask for a table on the host comes before the device has been given its work.
    clean = tokens.flatten(0, 1)[draws.unknown].expand_as(draws.noise)
    noise = draws.noise.to(clean.dtype)
    noisy, target = process.add_noise(clean, noise, draws.indices), process.target(clean, noise, draws.indices)
    times = process.times(torch.arange(process.train_steps, device=latents.device))

    prompt = model.prompt(drop_condition(model, condition, draws.dropped), motion, frame_rate)
    context = frames if draws.context is None else draws.context.blur(frames)
    conditions = model.temporal(patchify(context, 2 * patch), prompt, (height // (2 * patch), width // (2 * patch)))
    places = model.spatial.places((height // patch, width // patch), conditions.shape[2])
    branch = conditions.flatten(0, 1).unsqueeze(0)
    if draws.real is None:  # all frames have equally many unknown tokens, and no others need features
        unknown = draws.unknown.unflatten(0, (len(tokens), -1)) % per_frame
        features = model.spatial(tokens, draws.known, branch, places, chosen=unknown)[0].flatten(0, 1)
    else:
        features = model.spatial(tokens, draws.known, branch, places, draws.real)[0].flatten(0, 1)
        features = features.index_select(0, draws.unknown)
    contribution = model.denoiser.condition(features)
    table = model.denoiser.times(times)
    exact = torch.promote_types(table.dtype, torch.float32)
    table = table.to(exact)  # the gradients of many tokens come together there
    prediction = model.denoiser(noisy, draws.indices, table, contribution)
    errors = (prediction.to(exact) - target.to(exact)).square().mean(-1)
    return TokenErrors(errors, draws.unknown // per_frame % count)


def drop_condition(model: NovaTransformer, condition: Tensor, dropped: Bool[Tensor, " b"]) -> Tensor:
    """Text rows or labels with the null condition in place of the dropped ones."""
    if model.label is not None:
        return condition.masked_fill(dropped, model.label.null_class)
    assert model.text is not None  # a model has exactly one of the two
    null = model.text.null_rows[: condition.shape[1]].to(condition)
    return torch.where(dropped[:, None, None], null, condition)
