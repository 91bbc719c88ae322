"""One frame, set by set (paper section 3.3), each set by diffusion over its tokens (section 3.4).

Everything stays in token space. What a set's diffusion chain needs again and again (time embeddings, the condition's
projection) is computed once outside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nova.diffusion.process import SolverStep, solve
from nova.generation.guidance import Guidance
from nova.models.nova import NovaTransformer
from nova.models.spatial import Places


@dataclasses.dataclass(frozen=True)
class Chain:
    """The diffusion chain that samples every set: its table and the table's time embeddings."""

    table: tuple[SolverStep, ...]
    times: Float[Tensor, "steps w"]

    @classmethod
    def build(cls, model: NovaTransformer, table: tuple[SolverStep, ...]) -> Chain:
        """Embed the table's times once for all sets and frames."""
        device = model.denoiser.head.weight.device
        times = torch.tensor([step.time for step in table], dtype=torch.float32, device=device)
        return cls(table, model.denoiser.times(times))


def generate_frame(
    model: NovaTransformer,
    condition: Float[Tensor, "g b m width"],
    order: Int[Tensor, "b n"],
    sizes: list[int],
    places: Places,
    chain: Chain,
    guidance: Guidance,
    draw: Callable[[], Float[Tensor, "b n p"]],
) -> Iterator[Float[Tensor, "b n p"]]:
    """Yield the frame's tokens after each set; the last yield is the finished frame, unknown tokens are zero.

    `order` is the order in which places are filled, `sizes` the sizes of the sets. `draw` gives standard normal
    numbers for a whole frame: the published order of draws does not depend on which tokens a set predicts.
    """
    batch, count = order.shape
    tokens = torch.zeros(batch, count, model.shape.token_numbers, device=order.device)
    done = 0
    for number, size in enumerate(sizes, start=1):
        known, chosen = order[:, :done], order[:, done : done + size]
        features = model.spatial(tokens.to(condition.dtype), known, condition, places)
        index = chosen.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        sampled = sample_set(
            model,
            _at(features, chosen),
            chain,
            guidance,
            scale=guidance.scale_at(number / len(sizes)),
            draw=lambda index=index: draw().gather(1, index),  # type: ignore[misc]
        )
        tokens = tokens.scatter(1, index, sampled)
        done += size
        yield tokens


def sample_set(
    model: NovaTransformer,
    features: Float[Tensor, "g b s width"],
    chain: Chain,
    guidance: Guidance,
    scale: float,
    draw: Callable[[], Float[Tensor, "b s p"]],
) -> Float[Tensor, "b s p"]:
    """Sample the tokens of one set, given the spatial features of their places in every guidance branch."""
    condition = model.denoiser.condition(features)

    def predict(noisy: Float[Tensor, "b s p"], row: int) -> Float[Tensor, "b s p"]:
        running = condition[:1] if guidance.truncated(chain.table[row].time) else condition
        predictions = model.denoiser(noisy, chain.times[row], running)
        return guidance.combine(predictions.float(), scale)

    return solve(chain.table, draw(), predict, draw)


def _at(features: Float[Tensor, "g b n width"], index: Int[Tensor, "b s"]) -> Float[Tensor, "g b s width"]:
    branches, _, _, width = features.shape
    return features.gather(2, index[None, :, :, None].expand(branches, -1, -1, width))
