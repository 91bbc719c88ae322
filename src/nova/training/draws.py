"""Everything random in a training step, drawn on the CPU, sample by sample.

A sample's draws follow from its own generator, so they are the same on whichever machine and in whichever micro-batch
it is. All sizes and places are worked out here: the step itself never has to ask a device how many tokens there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nova.diffusion.process import Process
from nova.masking import draw_mask_ratio, lowest


@dataclasses.dataclass(frozen=True)
class ContextNoise:
    """Noise on the frames that later frames are conditioned on: x becomes (1 - level) x + level noise."""

    levels: Float[Tensor, "b t"]
    noise: Float[Tensor, "b t c h w"]

    def blur(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t c h w"]:
        """`frames` as the temporal encoder gets to see them."""
        return torch.lerp(frames, self.noise.to(frames), self.levels.to(frames)[:, :, None, None, None])


@dataclasses.dataclass(frozen=True)
class Draws:
    """What is drawn for a batch. `n` are the tokens of a frame, `u` the unknown tokens of all frames and samples."""

    known: Int[Tensor, "bt k"]
    """Places of the tokens that the spatial encoder sees, frame by frame; filled up with n where there are fewer."""
    real: Bool[Tensor, "bt k"] | None
    """Which of them are places; None where all are."""
    unknown: Int[Tensor, " u"]
    """Places of the tokens to predict, in all tokens of the batch one after another."""
    indices: Int[Tensor, "r u"]
    """Diffusion index of every unknown token, for each repeat of the loss."""
    noise: Float[Tensor, "r u p"]
    """Noise added to it."""
    dropped: Bool[Tensor, " b"]
    """Captions replaced by the null condition."""
    context: ContextNoise | None = None
    """Noise on the frames that condition later ones; the published training has none."""

    def to(self, device: torch.device) -> Draws:
        """The same draws on another device."""
        return _moved(self, device)


@dataclasses.dataclass(frozen=True)
class DrawRules:
    """How draws are made; the defaults are the published training's.

    repeats: of the loss, each with its own times and noise.  caption_dropout: probability of the null condition.
    mask_std, mask_low: the share of unknown tokens is drawn from a normal of mean 1 and `mask_std`, cut to
    [`mask_low`, 1] (paper section 3.3); at least one token of a frame is unknown.
    context_noise: largest noise level of the frames that condition later ones. Each frame's level is uniform up to
    it: generation conditions on its own, imperfect frames, and a model that has only seen perfect ones drifts.
    """

    repeats: int = 4
    caption_dropout: float = 0.1
    mask_std: float = 0.25
    mask_low: float = 0.7
    context_noise: float = 0.0

    def ratio(self, generator: torch.Generator) -> float:
        """A share of unknown tokens."""
        return draw_mask_ratio(generator, std=self.mask_std, low=self.mask_low)


def draw(
    process: Process,
    rules: DrawRules,
    shape: tuple[int, int, int, int],
    patch: int,
    ratios: Sequence[float],
    generators: Sequence[torch.Generator],
) -> Draws:
    """Draw for latents of `shape` (c t h w each) from one generator and one share of unknown tokens a sample.

    Every frame has its own random subset of known tokens, every repeat its own time and noise per token.
    """
    channels, frames, height, width = shape
    count = (height // patch) * (width // patch)
    marks, indices, noise, dropped, levels, context = [], [], [], [], [], []
    for ratio, generator in zip(ratios, generators, strict=True):
        known = lowest(torch.rand(frames, count, generator=generator), min(round((1 - ratio) * count), count - 1))
        unknown = (rules.repeats, int((~known).sum()))
        marks.append(known)
        indices.append(process.draw_indices(unknown, generator))
        noise.append(torch.randn((*unknown, patch**2 * channels), generator=generator))
        dropped.append(torch.rand((), generator=generator) < rules.caption_dropout)
        if rules.context_noise:
            levels.append(rules.context_noise * torch.rand(frames, generator=generator))
            context.append(torch.randn((frames, channels, height, width), generator=generator))
    blur = ContextNoise(torch.stack(levels), torch.stack(context)) if rules.context_noise else None
    return Draws(
        *places(torch.stack(marks)), torch.cat(indices, dim=1), torch.cat(noise, dim=1), torch.stack(dropped), blur
    )


def places(
    known: Bool[Tensor, "b t n"],
) -> tuple[Int[Tensor, "bt k"], Bool[Tensor, "bt k"] | None, Int[Tensor, " u"]]:
    """`Draws.known`, `.real` and `.unknown` for marks of the known tokens."""
    rows = known.flatten(0, 1)
    counts = rows.sum(dim=1)
    most = int(counts.max())
    found = (~rows).to(torch.uint8).argsort(dim=-1, stable=True)[:, :most]
    unknown = (~rows).flatten().nonzero().squeeze(1)
    if bool((counts == most).all()):
        return found, None, unknown
    real = torch.arange(most) < counts[:, None]
    return found.masked_fill(~real, rows.shape[1]), real, unknown


def _moved(value: Draws, device: torch.device) -> Draws:
    def move(one: object) -> object:
        if isinstance(one, Tensor):
            return one.to(device, non_blocking=True)
        if isinstance(one, ContextNoise):
            return ContextNoise(one.levels.to(device, non_blocking=True), one.noise.to(device, non_blocking=True))
        return one

    return Draws(*(move(getattr(value, field.name)) for field in dataclasses.fields(value)))  # type: ignore[arg-type]
