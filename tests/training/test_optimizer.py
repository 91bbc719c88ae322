"""The learning rate is a function of the step, weight decay spares what it should, clipping keeps the direction."""

import math

import pytest
import torch

from nova.training.config import OptimizerConfig
from nova.training.optimizer import adamw, clipped, gradient_norm, learning_rate, move
from tests.training.toy import toy


def rates(steps: int, **fields: object) -> list[float]:
    config = OptimizerConfig(learning_rate=2.0, **fields)
    return [learning_rate(config, step, steps) for step in range(steps)]


def test_constant_rate_stays():
    assert rates(7) == [2.0] * 7


def test_warm_up_rises_linearly_and_ends_at_the_rate():
    assert rates(6, warmup_steps=4) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_cosine_falls_from_the_rate_to_its_final_fraction():
    found = rates(101, schedule="cosine", final_fraction=0.1)
    assert found[0] == 2.0
    assert found == sorted(found, reverse=True)
    middle = 2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 50 / 101)))
    assert found[50] == pytest.approx(middle)
    assert found[-1] == pytest.approx(0.2, rel=0.01)


def test_cosine_can_wait():
    found = rates(100, schedule="cosine", warmup_steps=20, decay_fraction=0.25)
    assert found[19:80] == [2.0] * 61
    assert found[81] < 2.0
    assert found[-1] < 0.02


def test_only_weights_of_linear_layers_decay():
    model = toy()
    optimizer = adamw(model, OptimizerConfig(weight_decay=0.5))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    trained = {names[id(p)] for group in optimizer.param_groups for p in group["params"]}
    assert decayed == {"inner.weight"}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_norm_is_that_of_all_gradients_together():
    model = toy()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape[::-1], generator=torch.Generator().manual_seed(number)).t()
    together = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert gradient_norm(model) == pytest.approx(float(together.double().norm()), rel=1e-6)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_shows_in_the_norm(wrong):
    model = toy()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    next(model.parameters()).grad.view(-1)[-1] = wrong
    assert not math.isfinite(gradient_norm(model))


def test_clipping_shortens_what_is_too_long_and_nothing_else():
    assert clipped(0.5, 1.0) == 1.0
    assert clipped(0.0, 1.0) == 1.0
    assert 4.0 * clipped(4.0, 1.0) == pytest.approx(1.0, rel=1e-5)
    assert clipped(1e9, math.inf) == 1.0


@pytest.mark.parametrize("factor", [1.0, 1 / 3, 1e-12])
def test_moving_by_a_factor_is_moving_by_gradients_multiplied_by_it(factor):
    direct, scaled = toy(), toy()
    optimizers = [adamw(model, OptimizerConfig(learning_rate=0.1)) for model in (direct, scaled)]
    for step in range(3):
        for number, pair in enumerate(zip(direct.parameters(), scaled.parameters(), strict=True)):
            gradient = torch.randn(pair[0].shape, generator=torch.Generator().manual_seed(10 * step + number))
            pair[0].grad, pair[1].grad = gradient, gradient / factor
        move(optimizers[0], 1.0)
        move(optimizers[1], factor)
    for one, other in zip(direct.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    # Steps of AdamW hardly depend on a gradient's length; what it remembers does.
    states = zip(*(optimizer.state.values() for optimizer in optimizers), strict=True)
    for one, other in states:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert not torch.equal(next(direct.parameters()), next(toy().parameters()))
