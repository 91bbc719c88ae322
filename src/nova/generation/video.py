"""Frame by frame (paper section 3.2): from prompt tokens to latents, as an iterator of steps.

    condition, state = temporal.start(prompt)
    for each frame:  for each set: sample its tokens under the condition
                     condition, state = temporal.advance(frame, state)

A caller who stops iterating has cancelled. Given frames (an image, a clip) are a prefix: they only advance the state.
A video longer than a window starts anew with the end of what is there as its prefix, so memory stays bounded.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nova.diffusion.process import Process
from nova.generation.frame import Chain, Sampler, generate_frame, sample_set
from nova.generation.graphs import SetGraphs
from nova.generation.options import GenerationOptions
from nova.layers.patches import patchify, unpatchify
from nova.layers.transformer import take_rows
from nova.masking import set_sizes
from nova.models.conditioning import Prompts
from nova.models.nova import NovaTransformer
from nova.randomness import Generators, home, normal, uniform


@dataclasses.dataclass(frozen=True)
class Step:
    """What has been made so far of the current frame."""

    frame: int
    """Latent frame, counted from 0."""
    frames: int
    """Latent frames of the whole video."""
    set: int
    """Sets of this frame done; 0 for a frame that was given."""
    sets: int
    """Sets of this frame in all; 0 for a frame that was given."""
    latents: Float[Tensor, "b c h w"]
    """The frame's scaled latents; zero where nothing is known yet."""

    @property
    def finished(self) -> bool:
        """Whether the frame is complete."""
        return self.set == self.sets


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What stays the same over all frames of one generation."""

    model: NovaTransformer
    prompt: Prompts
    shape: tuple[int, int, int, int]
    options: GenerationOptions
    sample: Sampler
    draws: int
    """Noise tensors that a set needs."""
    sizes: list[int]
    order: Int[Tensor, "b n"]
    """Where the generators live."""
    generators: Generators

    def draw(self, done: int, size: int) -> Float[Tensor, "draws b s p"]:
        """Noise of the set of `size` tokens after `done` ones.

        Each tensor is drawn for a whole frame: the published order of draws does not depend on which tokens a set
        predicts. What is drawn on a CPU for a GPU goes there without anyone waiting for it.
        """
        chosen = self.order[:, done : done + size]
        device, patch = self.prompt.rows.device, self.model.shape.patch
        frames = (normal(self.shape, self.generators, chosen.device) for _ in range(self.draws))
        noise = torch.stack([take_rows(patchify(frame, patch), chosen) for frame in frames])
        return (noise.pin_memory() if noise.device != device else noise).to(device, non_blocking=True)


@torch.no_grad()
def generate_video(
    model: NovaTransformer,
    process: Process,
    prompt: Prompts | Float[Tensor, "g b l width"],
    size: tuple[int, int],
    frames: int,
    options: GenerationOptions,
    generators: Generators = None,
    prefix: Float[Tensor, "b c t h w"] | None = None,
    graphs: SetGraphs | None = None,
) -> Iterator[Step]:
    """Yield a step after every set of every frame of a video of `frames` latent frames.

    `prompt` holds the prompt tokens of every guidance branch: a tensor, as `Guidance.expand` makes it, or `Prompts`,
    which say what branches and samples share; that is then computed once. `size` is the latent height and width.
    `prefix` are scaled latents of given first frames, at least one fewer than `frames`. An image is a video of one
    frame. `graphs` keeps what a GPU was once told to do, for the next frames and calls.
    """
    prompt = prompt if isinstance(prompt, Prompts) else Prompts.unshared(prompt)
    config, batch = model.shape, len(prompt)
    height, width = size
    context = (height // (2 * config.patch)) * (width // (2 * config.patch))
    grid = (height // config.patch, width // config.patch)
    chain = Chain.build(model, process.table(options.diffusion_steps, options.flow_shift))
    places = model.spatial.places(grid, context)
    plan = _Plan(
        model=model,
        prompt=prompt,
        shape=(batch, config.channels, height, width),
        options=options,
        sample=(
            _untracked(functools.partial(sample_set, model, chain, options.guidance, places))
            if graphs is None
            else graphs.sampler(model, chain, options.guidance, places)
        ),
        draws=chain.draws,
        sizes=set_sizes(grid[0] * grid[1], options.steps),
        # One order for all frames, drawn before anything else.
        order=uniform((batch, grid[0] * grid[1], 1), generators, home(generators, prompt.rows.device))
        .argsort(dim=1)
        .squeeze(-1),
        generators=generators,
    )
    window = frames if options.window is None else min(options.window, frames)
    overlap = 0 if window == frames else window // 2
    recent = [] if prefix is None else list(prefix.float().unbind(2))
    for frame, latents in enumerate(recent):
        yield Step(frame, frames, 0, 0, latents)
    done = len(recent)
    start = max(0, done - overlap) if overlap else 0
    while done < frames:
        recent = recent[-overlap:] if overlap else recent
        end = min(start + window, frames)
        for step in _generate_window(plan, window, recent, end - start):
            if step.finished:
                recent.append(step.latents)
            yield dataclasses.replace(step, frame=start + step.frame, frames=frames)
        done, start = end, end - overlap


def _untracked(sample: Sampler) -> Sampler:
    """`sample` without the account that autograd keeps of tensors even where it takes no gradients."""

    def untracked(*arguments: Any, **more: Any) -> Float[Tensor, "b n p"]:
        with torch.inference_mode():
            tokens = sample(*arguments, **more)
        return tokens.clone()  # one that may be used like any other

    return untracked


def _generate_window(plan: _Plan, window: int, given: list[Float[Tensor, "b c h w"]], count: int) -> Iterator[Step]:
    """Frames after the `given` ones up to `count`, in one temporal pass laid out for `window` latent frames."""
    temporal, config = plan.model.temporal, plan.model.shape
    _, _, height, width = plan.shape
    patch = 2 * config.patch
    guidance = plan.options.guidance
    condition, state = temporal.start(plan.prompt, window, (height // patch, width // patch), guidance.blind)
    given = list(given)
    order = plan.order.to(condition.device)
    for frame in range(count):
        if frame < len(given):
            latents = given[frame]
        else:
            numbers = config.token_numbers
            sets = generate_frame(plan.sample, condition, order, plan.sizes, guidance, numbers, plan.draw)
            for number, tokens in enumerate(sets, start=1):
                latents = unpatchify(tokens, config.patch, height, width)
                yield Step(frame, window, number, len(plan.sizes), latents)
        if frame + 1 < count:
            condition, state = temporal.advance(patchify(latents, patch).to(condition.dtype), state)
