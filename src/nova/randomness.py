"""Every random number has an owner: a generator per sample when generating, one per (seed, step) when training.

A single generator for a whole batch draws in the order of the published code, so that a seed gives the same result;
one generator per sample makes each sample independent of the batch it is in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One for the batch, one per sample, or None for torch's global one."""


def normal(shape: Sequence[int], generators: Generators, device: torch.device) -> Float[Tensor, "..."]:
    """Standard normal float32 numbers of `shape`, its first axis the batch, on `device`."""
    return _draw(torch.randn, shape, generators, device)


def uniform(shape: Sequence[int], generators: Generators, device: torch.device) -> Float[Tensor, "..."]:
    """Uniform float32 numbers in [0, 1) of `shape`, its first axis the batch, on `device`."""
    return _draw(torch.rand, shape, generators, device)


def home(generators: Generators, device: torch.device) -> torch.device:
    """Where `generators` draw: their own device, or `device` for torch's global one."""
    first = generators if isinstance(generators, torch.Generator) or generators is None else generators[0]
    return device if first is None else first.device


def _draw(function: object, shape: Sequence[int], generators: Generators, device: torch.device) -> Tensor:
    if generators is None or isinstance(generators, torch.Generator):
        # Drawn where the generator lives: a CPU seed then means the same numbers on every device.
        source = device if generators is None else generators.device
        return function(tuple(shape), generator=generators, device=source).to(device)  # type: ignore[operator]
    return torch.cat([_draw(function, (1, *shape[1:]), generator, device) for generator in generators])


def generator_for(*key: int | str) -> torch.Generator:
    """A CPU generator that is a pure function of `key`, such as (seed, "noise", step)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
