"""The shortest time a generation can take: its operations at the machine's speed, or its bytes, whichever is more.

Operations are those of `nova.models.flops`. Bytes are weights only: sets follow each other, and so do a set's
diffusion steps, so each reads the weights of its network once, unless the processor can keep them; what else is read is
little beside that.
"""

from __future__ import annotations

import dataclasses

from torch import nn

from nova.masking import set_sizes
from nova.models.flops import generation_flops
from nova.models.nova import NovaTransformer

KEPT = 64 << 20
"""Weights of so many bytes may stay in a processor's cache (60 MB in an H200) and count once."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What a generation does at least."""

    flops: float
    """Operations in matrix products and attention."""
    bytes: float
    """Bytes of weights read."""

    def limit(self, speed: float, bandwidth: float) -> float:
        """Seconds on a machine of so many operations and bytes a second."""
        return max(self.flops / speed, self.bytes / bandwidth)


def least_work(
    model: NovaTransformer, *, frames: int, size: tuple[int, int], steps: int, diffusion_steps: int, batch: int
) -> Work:
    """The least work of a guided generation of `batch` samples of `frames` latent frames of `size` latent cells."""
    height, width = size
    flops = generation_flops(
        model.shape,
        latent_frames=frames,
        latent_height=height,
        latent_width=width,
        steps=steps,
        diffusion_steps=diffusion_steps,
    )
    sets = len(set_sizes(height * width // model.shape.patch**2, steps))
    read = (
        _bytes_read(model.temporal, frames)
        + _bytes_read(model.spatial, frames * sets)
        + _bytes_read(model.denoiser, frames * sets * diffusion_steps)
    )
    return Work(batch * flops.total, float(read))


def _bytes_read(network: nn.Module, passes: int) -> int:
    size = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    return size if size <= KEPT else size * passes
