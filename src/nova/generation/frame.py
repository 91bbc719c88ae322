"""One frame, set by set (paper section 3.3), each set by diffusion over its tokens (section 3.4).

Everything stays in token space. What a set's diffusion chain needs again and again (time embeddings, the condition's
projection, the modulations of its blocks) is computed outside the chain's loop, and its noise is drawn beforehand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nova.diffusion.process import SolverStep, solve
from nova.generation.guidance import Guidance
from nova.models.nova import NovaTransformer
from nova.models.spatial import Places

MODULATION_ROWS = 128
"""Modulations of so many steps of a chain are computed at once that the matrix product has about this many rows."""


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

    @property
    def draws(self) -> int:
        """Noise tensors that a set needs: its start, then one for every step that draws."""
        return 1 + sum(step.draws_noise for step in self.table)


@runtime_checkable
class Sampler(Protocol):
    """Samples one set: `sample_set` with everything that stays the same over all sets filled in."""

    def __call__(
        self,
        tokens: Float[Tensor, "b n p"],
        order: Int[Tensor, "b n"],
        condition: Float[Tensor, "g b m width"],
        noise: Float[Tensor, "draws b s p"],
        scale: float | Float[Tensor, ""],
        *,
        done: int,
    ) -> Float[Tensor, "b n p"]: ...


def generate_frame(
    sample: Sampler,
    condition: Float[Tensor, "g b m width"],
    order: Int[Tensor, "b n"],
    sizes: list[int],
    guidance: Guidance,
    numbers: int,
    draw: Callable[[int, int], Float[Tensor, "draws b s p"]],
) -> Iterator[Float[Tensor, "b n p"]]:
    """Yield the frame's tokens, of `numbers` each, after each set; the last yield is the finished frame.

    Unknown tokens are zero. `order` is the order in which places are filled, `sizes` the sizes of the sets. `draw`
    gives the noise of a set that begins after so many tokens and has such a size.
    """
    tokens = torch.zeros(*order.shape, numbers, device=order.device)
    done = 0
    for number, size in enumerate(sizes, start=1):
        scale = guidance.scale_at(number / len(sizes))
        branches = condition if guidance.covers(number, len(sizes)) else condition[:1]
        tokens = sample(tokens, order, branches, draw(done, size), scale, done=done)
        done += size
        yield tokens


def sample_set(
    model: NovaTransformer,
    chain: Chain,
    guidance: Guidance,
    places: Places,
    tokens: Float[Tensor, "b n p"],
    order: Int[Tensor, "b n"],
    condition: Float[Tensor, "g b m width"],
    noise: Float[Tensor, "draws b s p"],
    scale: float | Float[Tensor, ""],
    *,
    done: int,
) -> Float[Tensor, "b n p"]:
    """The frame with one more set sampled: at the places in `order` after the `done` known ones that `noise` is for.

    A function of tensors whose shapes say all about the work to be done; on a GPU it waits for nothing.
    """
    denoiser, known, chosen = model.denoiser, order[:, :done], order[:, done : done + noise.shape[2]]
    features = model.spatial(tokens.to(condition.dtype), known, condition, places, chosen=chosen)
    contribution = denoiser.condition(features)
    alone = [guidance.truncated(step.time) for step in chain.table]
    parts = -(-len(alone) * contribution[..., 0].numel() // MODULATION_ROWS)
    at_once = -(-len(alone) // parts)
    coming: list[tuple[Float[Tensor, "g b s w"], ...]] = []  # modulations of the next steps, the last one's first

    def predict(noisy: Float[Tensor, "b s p"], row: int) -> Float[Tensor, "b s p"]:
        if not coming:
            rows = [later for later in range(row, len(alone))[:at_once] if alone[later] == alone[row]]
            branches = contribution[:1] if alone[row] else contribution
            times = chain.times[row : rows[-1] + 1, None, None, None]
            modulations = zip(*(part.unbind() for part in denoiser.modulations(times, branches)), strict=True)
            coming.extend(reversed(list(modulations)))
        return guidance.combine(denoiser.predict(noisy, coming.pop()).float(), scale)

    draws = iter(noise)
    sampled = solve(chain.table, next(draws), predict, draws.__next__)
    return tokens.scatter(1, chosen.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]), sampled)
