"""A set's chain computes what it needs beforehand, in parts that are neither many nor large."""

from __future__ import annotations

import pytest
import torch

from nova.diffusion.flow import FlowProcess
from nova.generation.frame import MODULATION_ROWS, Chain, sample_set
from nova.generation.guidance import Guidance
from tests import tiny


@torch.no_grad()
@pytest.mark.parametrize(
    ("batch", "truncation", "steps"),
    [(1, 0.0, [25]), (5, 0.0, [13, 12]), (80, 0.0, [1] * 25), (5, 400.0, [13, 2, 10])],
)
def test_modulations_come_in_equal_parts(
    monkeypatch: pytest.MonkeyPatch, batch: int, truncation: float, steps: list[int]
) -> None:
    model = tiny.model()
    chain, guidance = Chain.build(model, FlowProcess().table(25)), Guidance(3.0, truncation=truncation)
    seen, usual = [], model.denoiser.modulations

    def counted(times: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append((len(times), len(times) * condition[..., 0].numel()))
        return usual(times, condition)

    monkeypatch.setattr(model.denoiser, "modulations", counted)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    order = torch.arange(16).expand(batch, -1)
    places = model.spatial.places((4, 4), 4)
    width, numbers = model.shape.width, model.shape.token_numbers
    tokens, condition = torch.zeros(batch, 16, numbers, dtype=torch.float64), normal(2, batch, 4, width)
    sample_set(model, chain, guidance, places, tokens, order, condition, normal(1, batch, 1, numbers), 3.0, done=3)
    assert [count for count, _ in seen] == steps
    assert all(rows - rows // count < MODULATION_ROWS for count, rows in seen)
