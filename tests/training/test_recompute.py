"""What is computed again is the same: gradients do not depend on what a step keeps."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from nova.training.config import Recompute
from nova.training.recompute import autocast, recompute_blocks
from nova.training.transformer import LatentBatch, TransformerObjective, scheduler_for
from tests import tiny
from tests.training.samples import latent_run

CPU = torch.device("cpu")
PROCESS = scheduler_for(latent_run()).training


def gradients(recompute: Recompute, dtype: torch.dtype, bfloat16: bool) -> dict[str, Tensor]:
    """Of a batch of two samples, by parameter."""
    objective = TransformerObjective(tiny.model(dtype, scale_shift=True), PROCESS, None, 1.0, 1.0)
    recompute_blocks(objective, recompute)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 3, 8, 12, generator=generator, dtype=dtype)
    text = torch.randn(2, 6, 16, generator=generator, dtype=dtype)
    draws = tiny.draws(PROCESS, ratios=(0.8, 0.6), seeds=range(2))
    with autocast(CPU, bfloat16, recompute):
        loss = objective(LatentBatch(latents, text, (), torch.ones(2), torch.ones(2), draws)).parts["loss"]
    loss.backward()
    return {name: one.grad for name, one in objective.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("recompute", get_args(Recompute))
def test_gradients_are_those_of_a_step_that_keeps_everything(recompute: Recompute) -> None:
    expected = gradients("nothing", torch.float64, bfloat16=False)
    assert all(one.any() for one in expected.values())
    torch.testing.assert_close(gradients(recompute, torch.float64, bfloat16=False), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("recompute", ["activations", "cheap", "blocks"])
def test_in_half_precision_but_for_rounding(recompute: Recompute) -> None:
    found, expected = (gradients(policy, torch.float32, bfloat16=True) for policy in (recompute, "nothing"))
    for name, one in expected.items():
        assert (found[name] - one).norm() <= 0.05 * one.norm() + 1e-6, name
