"""The state is all that a run needs to go on: nothing is left out, and names stay what they are."""

import pytest
import torch

from nova.errors import CheckpointError
from nova.training.state import Averaged, TrainState, check_names, weights
from tests.training.toy import toy, toy_run


def test_nothing_is_left_out():
    state = TrainState.start(toy(), toy_run().optimizer)
    names = {name for name, _ in state.model.named_parameters()}
    trainable = {name for name, parameter in state.model.named_parameters() if parameter.requires_grad}
    assert set(state.tensors()) == {
        *(f"weights.{name}" for name in names | {"scale"}),
        *(f"ema.{name}" for name in trainable),
        *(f"optimizer.{name}.{moment}" for name in trainable for moment in ("exp_avg", "exp_avg_sq")),
    }


def test_a_tensor_with_two_names_is_saved_once():
    assert "out.weight" not in weights(toy())


def test_the_optimizer_counts_the_steps_that_changed_something():
    state = TrainState.start(toy(), toy_run().optimizer)
    state.count({"step": 9, "skipped": 2, "skipped_in_row": 1, "ema_updates": 4})
    assert (state.step, state.skipped, state.skipped_in_row, state.ema.updates, state.updates) == (9, 2, 1, 4, 7)
    assert {float(found["step"]) for found in state.optimizer.state.values()} == {7.0}


def test_an_averaged_model_leaves_the_state_as_it_is():
    model = toy().train()
    averaged = Averaged(model)
    state = TrainState.start(model, toy_run().optimizer)
    for shadow in state.ema.shadows.values():
        shadow.zero_()
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    made = averaged.model(state)
    assert model.training
    assert not made.training
    assert all(torch.equal(before[name], tensor) for name, tensor in state.tensors().items())
    assert not made.inner.weight.any()
    assert torch.equal(made.frozen.weight, model.frozen.weight)
    assert made.out.weight is made.table.weight
    assert averaged.model(state) is not made


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"1 tensors.*'a' \(missing\)"),
        ({"a": (2,), "b": (1,)}, r"'b' \(unknown\)"),
        ({"a": (3,)}, r"\[3\], not \[2\]"),
    ],
)
def test_other_tensors_are_refused_by_name(given, said):
    sizes = {name: torch.Size(size) for name, size in given.items()}
    with pytest.raises(CheckpointError, match=said):
        check_names({"a": torch.Size([2])}, sizes)
