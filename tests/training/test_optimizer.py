"""The learning rate is a function of the step, weight decay spares what it should, clipping keeps the direction."""

import math

import pytest
import torch

from nova.training.config import OptimizerConfig
from nova.training.optimizer import adamw, clip_gradients, learning_rate
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


def test_clipping_scales_all_gradients_alike_and_tells_the_norm_before():
    model = toy()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    count = sum(parameter.numel() for parameter in model.parameters())
    norm = clip_gradients(model, 1.0)
    assert norm == pytest.approx(3.0 * math.sqrt(count))
    gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert float(gradients.norm()) == pytest.approx(1.0, rel=1e-5)
    assert len(gradients.unique()) == 1
    assert clip_gradients(model, 10.0) == pytest.approx(1.0, rel=1e-5)
    assert clip_gradients(model, 10.0, 4.0) == pytest.approx(4.0, rel=1e-5)
    assert clip_gradients(model, 1.0, 4.0) == pytest.approx(16.0, rel=1e-5)
    assert clip_gradients(model, 10.0) == pytest.approx(1.0, rel=1e-5)
