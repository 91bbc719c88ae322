"""A rehearsed step counts what a real one does, without numbers; time is traded for memory as it is said."""

import dataclasses
import functools
from typing import get_args

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nova.models.flops import training_flops
from nova.models.nova import NovaTransformer
from nova.randomness import generator_for
from nova.training.config import Recompute
from nova.training.draws import draw
from nova.training.recompute import autocast, recompute_blocks
from nova.training.rehearsal import Account, rehearse
from nova.training.transformer import LatentBatch, TransformerObjective, scheduler_for
from tests import tiny
from tests.training.samples import latent_run

CPU = torch.device("cpu")
SHAPE = tiny.config(width=64, denoiser_width=64, temporal_layers=1, latent_height=16, latent_width=16, scale_shift=True)


def objective(device="meta", shape=SHAPE):
    """A network with its loss."""
    with torch.device(device):
        model = NovaTransformer(shape)
    return TransformerObjective(model, scheduler_for(latent_run()).training, None, 1.0, 1.0)


def batch(count=2, share=0.75):
    """Samples of zeros, of which `share` is to be predicted."""
    process = scheduler_for(latent_run()).training
    generators = [generator_for(0, index) for index in range(count)]
    draws = draw(process, latent_run().rules, (4, 3, 16, 16), 2, [share] * count, generators)
    scalars = torch.ones(count)
    return LatentBatch(torch.zeros(count, 4, 3, 16, 16), torch.zeros(count, 6, 16), (), scalars, scalars, draws)


@functools.cache
def rehearsed(parts=1, bfloat16=False, recompute="nothing", count=2):
    return rehearse(objective(), batch(count), parts, CPU, bfloat16, recompute)


@pytest.mark.parametrize("recompute", get_args(Recompute))
def test_a_step_without_numbers_counts_what_a_real_one_does(recompute):
    real, account = objective("cpu"), Account()
    recompute_blocks(real, recompute)
    account.leave_out(real)
    with account:
        real(batch()).parts["loss"].backward()
    found = rehearsed(recompute=recompute)
    assert found.flops == account.flops
    assert found.peak == pytest.approx(account.peak, rel=0.01)


def test_operations_are_counted_as_torch_counts_them():
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # of other attention it knows nothing
        objective("cpu")(batch()).parts["loss"].backward()
    assert rehearsed().flops == counter.get_total_flops()


def test_the_count_is_that_of_the_formula():
    wide = dataclasses.replace(SHAPE, width=768, heads=12, denoiser_width=768)
    found = rehearse(objective(shape=wide), batch(), 1, CPU, False, "nothing").flops
    least = 2 * 3 * training_flops(wide, mask_ratio=0.75).total
    # The formula has one table of times, and takes the backward pass of attention for twice the forward pass.
    assert 1 < found / least < 1.15


def test_nothing_is_put_into_the_given_network():
    given = objective()
    rehearse(given, batch(), 1, CPU, False, "blocks")
    assert all(parameter.is_meta and parameter.grad is None for parameter in given.parameters())
    assert not any("forward" in vars(module) for module in given.modules())


def test_recomputation_takes_time_and_saves_memory():
    everything, activations, cheap, blocks = (rehearsed(recompute=policy) for policy in get_args(Recompute))
    assert everything.flops == activations.flops == cheap.flops < blocks.flops
    assert everything.peak > activations.peak > cheap.peak > blocks.peak


@pytest.mark.parametrize("recompute", ["activations", "cheap", "blocks"])
def test_in_half_precision_too(recompute):
    everything, less = (rehearsed(bfloat16=True, recompute=policy) for policy in ("nothing", recompute))
    assert everything.peak > less.peak
    real = objective("cpu")
    recompute_blocks(real, recompute)
    with autocast(CPU, True, recompute):
        loss = real(batch()).parts["loss"]
    loss.backward()
    assert all(parameter.grad is not None for parameter in real.model.denoiser.parameters())


def test_parts_add_operations_and_keep_gradients():
    one, three = rehearsed(), rehearsed(parts=3)
    assert three.flops == 3 * one.flops
    assert one.peak < three.peak < 2 * one.peak


def test_memory_grows_with_the_samples_and_shrinks_with_the_precision():
    assert rehearsed(count=4).peak > 1.5 * rehearsed(count=2).peak
    assert rehearsed(bfloat16=True, count=8).peak < rehearsed(count=8).peak


def test_a_shape_that_does_not_fit_shows():
    wrong = dataclasses.replace(batch(), condition=torch.zeros(2, 6, 17))
    with pytest.raises(RuntimeError, match="shape|size"):
        rehearse(objective(), wrong, 1, CPU, False, "nothing")
