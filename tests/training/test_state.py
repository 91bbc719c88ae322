"""The state is saved whole, and comes back whole or not at all."""

import pytest
import torch

from nova.errors import CheckpointError
from nova.training.state import TrainState, weights
from tests.training.toy import everything, toy, toy_run


def trained() -> TrainState:
    state = TrainState.start(toy(), toy_run().optimizer)
    for _ in range(3):
        state.model(torch.arange(5)).square().sum().backward()
        state.optimizer.step()
        state.ema.update(state.model)
        state.step += 1
    state.skipped, state.skipped_in_row = 2, 1
    return state


def test_load_is_the_inverse_of_saving():
    state, other = trained(), TrainState.start(toy(seed=1), toy_run().optimizer)
    assert everything(state) != everything(other)
    other.load({part: dict(found) for part, found in state.tensors().items()}, state.counters())
    assert everything(state) == everything(other)


def test_nothing_is_left_out():
    state = trained()
    tensors = state.tensors()
    names = {name for name, _ in state.model.named_parameters()}
    trainable = {name for name, parameter in state.model.named_parameters() if parameter.requires_grad}
    assert set(tensors["weights"]) == names | {"scale"}
    assert set(tensors["ema"]) == trainable
    assert set(tensors["optimizer"]) == {
        f"{name}.{key}" for name in trainable for key in ("step", "exp_avg", "exp_avg_sq")
    }


def test_a_tensor_with_two_names_is_saved_once():
    assert "out.weight" not in weights(toy())


@pytest.mark.parametrize("part", ["weights", "ema"])
def test_tensors_of_another_model_are_refused_and_nothing_changes(part):
    state, other = trained(), TrainState.start(toy(seed=1), toy_run().optimizer)
    before = everything(other)
    for wrong in ({}, {"inner.weight": torch.zeros(2, 2)}):
        tensors = {**state.tensors(), part: {**state.tensors()[part], **wrong, "more": torch.zeros(1)}}
        with pytest.raises(CheckpointError, match=part):
            other.load(tensors, state.counters())
        assert everything(other) == before
