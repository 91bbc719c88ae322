"""A compiled step has the gradients of a plain one, whatever it computes again, and keeps what that policy says."""

from __future__ import annotations

import shutil
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from nova.training.cluster import Cluster
from nova.training.config import Recompute
from nova.training.recompute import autocast
from nova.training.step import prepare
from nova.training.transformer import LatentBatch, TransformerObjective, scheduler_for
from tests import tiny
from tests.training.samples import latent_run

pytestmark = [
    pytest.mark.usefixtures("compiling"),
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler"),
]
CPU = torch.device("cpu")
PROCESS = scheduler_for(latent_run()).training


def batch(dtype: torch.dtype, *ratios: float) -> LatentBatch:
    """Samples of random numbers, each with a share that is to be predicted."""
    generator, count = torch.Generator().manual_seed(0), len(ratios)
    latents = torch.randn(count, 4, 3, 8, 12, generator=generator, dtype=dtype)
    text = torch.randn(count, 6, 16, generator=generator, dtype=dtype)
    draws = tiny.draws(PROCESS, ratios=ratios, seeds=range(count))
    return LatentBatch(latents, text, (), torch.ones(count), torch.ones(count), draws)


def network(dtype: torch.dtype, compiled: bool, policy: Recompute) -> nn.Module:
    objective = TransformerObjective(tiny.model(dtype, scale_shift=True), PROCESS, None, 1.0, 1.0)
    return prepare(objective, latent_run(compile=compiled, recompute=policy), Cluster())


def gradients(objective: nn.Module, given: LatentBatch) -> dict[str, Tensor]:
    objective.zero_grad()
    objective(given).parts["loss"].backward()
    return {name: one.grad for name, one in objective.named_parameters() if one.grad is not None}


def kept(compiled: bool, policy: Recompute) -> int:
    """Bytes for the backward pass of a step in bfloat16, without those of the weights."""
    objective, sizes = network(torch.float32, compiled, policy), {}
    own = {one.untyped_storage().data_ptr() for one in objective.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(CPU, True, policy):
        loss = objective(batch(torch.float32, 0.8, 0.8)).parts["loss"]
    loss.backward()
    return sum(sizes.values())


@pytest.mark.parametrize("policy", get_args(Recompute))
def test_gradients_are_those_of_plain_steps(policy: Recompute) -> None:
    compiled, plain = network(torch.float64, True, policy), network(torch.float64, False, "nothing")
    for ratios in ((0.8, 0.8), (0.6, 0.9, 0.7), (0.5,)):
        given = batch(torch.float64, *ratios)
        found, expected = gradients(compiled, given), gradients(plain, given)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_what_is_computed_again_is_not_kept() -> None:
    everything, activations, cheap, blocks = (kept(True, policy) for policy in get_args(Recompute))
    assert kept(False, "nothing") > everything > activations > cheap > blocks
