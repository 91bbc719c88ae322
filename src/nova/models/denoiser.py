"""Token by token: the denoising MLP (paper section 3.4), a residual MLP modulated by time and spatial features.

What does not depend on the noisy token is computed apart from it: `condition` and `times`, and from these the
modulations of all blocks by one projection. A diffusion chain knows its times beforehand, so that its loop consists of
`predict` alone; in training every token has a time of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from nova.layers.positions import SCALAR_FREQUENCIES, timestep_embedding
from nova.layers.transformer import Projector
from nova.models.config import NovaConfig


class DenoisingMLP(nn.Module):
    """Predicts noise or velocity of single noisy tokens. Leading axes broadcast: guidance branches share tokens."""

    def __init__(self, config: NovaConfig) -> None:
        super().__init__()
        width, numbers = config.denoiser_width, config.token_numbers
        self.embed = nn.Linear(numbers, width)
        self.time = Projector(2 * SCALAR_FREQUENCIES, width)
        self.feature = Projector(config.width, width)
        self.activation = nn.SiLU()
        self.modulation = nn.Linear(width, (3 * config.denoiser_blocks + 2) * width)
        self.blocks = nn.ModuleList(DenoisingBlock(width) for _ in range(config.denoiser_blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.head = nn.Linear(width, numbers)

    def condition(self, features: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead w"]:
        """What the spatial features contribute; the same at every diffusion time."""
        return self.feature(features)

    def times(self, times: Shaped[Tensor, "*lead"]) -> Float[Tensor, "*lead w"]:
        """What diffusion times in [0, 1000] contribute; the same for every token."""
        return self.time(timestep_embedding(times).to(self.time.fc1.weight.dtype))

    def modulations(
        self, time: Float[Tensor, "*#lead w"], condition: Float[Tensor, "*#lead w"]
    ) -> tuple[Float[Tensor, "*lead w"], ...]:
        """What modulates the blocks, given results of `times` and `condition`.

        Factor (one plus the published scale), shift and gate of each, then factor and shift of the head.
        """
        parts = list(self.modulation(self.activation(condition + time)).chunk(3 * len(self.blocks) + 2, dim=-1))
        for index in range(0, len(parts), 3):
            parts[index] = parts[index] + 1 if torch.is_grad_enabled() else parts[index].add_(1)
        return tuple(parts)

    def forward(
        self,
        noisy: Float[Tensor, "r u p"],
        indices: Int[Tensor, "r u"],
        table: Float[Tensor, "v w"],
        condition: Float[Tensor, "u w"],
    ) -> Float[Tensor, "r u p"]:
        """The process's prediction for `noisy` tokens, each at the time whose result of `times` its index has.

        A token is there in several repeats. `condition` is a result of the function of that name.
        """
        times = table.index_select(0, indices.flatten()).unflatten(0, indices.shape)
        return self.predict(noisy, self.modulations(times, condition))

    def predict(
        self, noisy: Float[Tensor, "*#lead p"], modulations: Sequence[Float[Tensor, "*#lead w"]]
    ) -> Float[Tensor, "*lead p"]:
        """`forward` for whoever has the `modulations` already."""
        x = self.embed(noisy.to(self.embed.weight.dtype))
        for index, block in enumerate(self.blocks):
            x = block(x, modulations[3 * index], modulations[3 * index + 1], modulations[3 * index + 2])
        return self.head(modulated(self.norm(x), modulations[-2], modulations[-1]))


def modulated(x: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """`x * factor + shift`, all (..., w)."""
    if torch.is_grad_enabled():  # the derivative of addcmul is slow: it multiplies by its factor of one, too
        return x * factor + shift
    return torch.addcmul(shift, x, factor)


class DenoisingBlock(nn.Module):
    """`x + gate * LN(MLP(LNna(x) * factor + shift))`; LNna has no parameters of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Projector(width, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, factor: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
        """All arguments (..., w), broadcast over leading axes."""
        branch = self.norm2(self.mlp(modulated(self.norm1(x), factor, shift)))
        return x + gate * branch if torch.is_grad_enabled() else torch.addcmul(x, gate, branch)
