"""The loss over samples that training never sees, as a whole and by noise level.

A mean over all levels hides where a model gets better: at little noise it is about texture, at much noise about what
is to be seen at all. Everything drawn is the same every time, so that what changes between two looks is the model.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nova.autoencoders.adapter import Autoencoder
from nova.data.order import permuted
from nova.data.samples import LatentSample
from nova.errors import UsageError
from nova.models.nova import NovaTransformer
from nova.training.objective import TokenErrors, token_errors
from nova.training.transformer import Encode, Source, TransformerObjective, TransformerRun, transformer_task

EDGES = (0, 250, 500, 750, 1000)
"""Diffusion times between noise levels; 1000 is noise alone."""


@dataclass(frozen=True)
class Part:
    """A part of a source: of some of its buckets, a range of places in a fixed random order of the bucket."""

    source: Source
    ranges: tuple[tuple[int, range], ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples in each bucket."""
        return tuple(len(places) for _, places in self.ranges)

    @property
    def buckets(self) -> tuple[tuple[int, int, int, int], ...]:
        """Shape (2c t h w) of each bucket's moments."""
        return tuple(self.source.buckets[bucket] for bucket, _ in self.ranges)

    def get(self, bucket: int, index: int) -> LatentSample:
        """A sample of a bucket. Raises DataError where it cannot be read."""
        return self.source.get(*self._find(bucket, index))

    def where(self, bucket: int, index: int) -> str:
        """Where a sample is, for messages; reads nothing."""
        return self.source.where(*self._find(bucket, index))

    def _find(self, bucket: int, index: int) -> tuple[int, int]:
        number, places = self.ranges[bucket]
        count = self.source.counts[number]
        return number, int(permuted(np.array([places[index]]), count, "held out", number)[0])


def split(source: Source, held_out: int) -> tuple[Part, Part]:
    """`source` without `held_out` of its samples, and these alone: the same ones for every run on the same data.

    Each bucket gives its share. Raises UsageError where that would be more than half of all samples.
    """
    total = sum(source.counts)
    if held_out > total // 2:
        raise UsageError(f"observe.held_out: {held_out} of {total} samples; hold out at most half of them")
    # The difference of rounded sums: shares that add up.
    ends = [held_out * end // total for end in itertools.accumulate(source.counts)]
    shares = [end - before for before, end in itertools.pairwise([0, *ends])]
    rest = [
        (bucket, range(count - share)) for bucket, (count, share) in enumerate(zip(source.counts, shares, strict=True))
    ]
    held = [(bucket, range(len(kept), source.counts[bucket])) for bucket, kept in rest]
    return Part(source, _filled(rest)), Part(source, _filled(held))


@torch.no_grad()
def held_out_loss(
    config: TransformerRun,
    model: NovaTransformer,
    samples: Source,
    autoencoder: Autoencoder,
    encode: Encode | None = None,
) -> dict[str, float]:
    """The loss of `model`, where it is, over all of `samples`, by name.

    `held_out/loss` is the mean that training minimises, of samples with their captions and clean frames before them;
    for clips `held_out/first` is that of first frames and `held_out/later` that of the others. `held_out/noise_0_250`
    and so on are means over the tokens whose diffusion time is in that range, where there are any.
    """
    fixed = {"batch_size": 1, "seed": 0, "caption_dropout": 0.0, "motion_dropout": 0.0, "context_noise": 0.0}
    task = transformer_task(config.model_copy(update=fixed), model, samples, autoencoder, encode)
    objective = task.objective
    assert isinstance(objective, TransformerObjective)
    device = next(model.parameters()).device
    sums: dict[str, float] = defaultdict(float)
    tokens: dict[str, int] = defaultdict(int)
    for step in range(sum(samples.counts)):
        batch = task.batch(step, range(1)).to(device)
        condition = objective.condition(batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            found = token_errors(
                model, objective.process, batch.latents, condition, batch.draws, batch.motion, batch.frame_rate
            )
        errors = found.errors.double()
        for name, chosen in _groups(found, objective.process.times(batch.draws.indices)).items():
            sums[name] += float(errors[chosen].sum())
            tokens[name] += int(chosen.sum())
    means = {name: sums[name] / tokens[name] for name in sums if tokens[name]}
    first, later = means.pop("held_out/first"), means.pop("held_out/later", None)
    if later is None:
        return {"held_out/loss": config.first_weight * first, **means}
    loss = config.first_weight * first + config.later_weight * later
    return {"held_out/loss": loss, "held_out/first": first, "held_out/later": later, **means}


def _groups(found: TokenErrors, times: Tensor) -> dict[str, Tensor]:
    """Which errors (r u) belong to which figure."""
    first = (found.frames == 0).expand_as(times)
    groups = {"held_out/first": first, "held_out/later": ~first}
    for low, high in itertools.pairwise(EDGES):
        below = times <= high if high == EDGES[-1] else times < high
        groups[f"held_out/noise_{low}_{high}"] = (times >= low) & below
    return groups


def _filled(ranges: list[tuple[int, range]]) -> tuple[tuple[int, range], ...]:
    return tuple((bucket, places) for bucket, places in ranges if places)
