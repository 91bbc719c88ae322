"""Two-step solvers, on data whose predictions are known: a normal distribution's."""

import math

import pytest
import torch

from nova.diffusion.flow import FlowProcess
from nova.diffusion.gaussian import FIRST, GaussianProcess
from nova.diffusion.process import solve
from nova.errors import UsageError

MEAN, DEVIATION = 1.5, 0.4
PROCESSES = {
    "flow": FlowProcess(),
    "shifted flow": FlowProcess(shift=3.0),
    "epsilon": GaussianProcess(),
    "sample": GaussianProcess(prediction="sample"),
    "v_prediction": GaussianProcess(prediction="v_prediction"),
}


def levels(process, time):
    """Factors of clean sample and noise at a time."""
    if isinstance(process, FlowProcess):
        return 1 - time / 1000, time / 1000
    power = process._abar.double()[int(time)].item()
    return math.sqrt(power), math.sqrt(1 - power)


def error(process, steps):
    """How far the chain ends from where the exact path from the same start does, over ten starts."""
    table = process.table(steps)
    z = torch.linspace(-2, 2, 10, dtype=torch.float64)[:, None]

    def spread(signal, noise):
        return math.sqrt((signal * DEVIATION) ** 2 + noise**2)

    def predict(x, row):
        signal, noise = levels(process, table[row].time)
        centred = (x - signal * MEAN) / spread(signal, noise) ** 2
        clean, gaussian = MEAN + signal * DEVIATION**2 * centred, noise * centred
        kind = getattr(process, "prediction", "velocity")
        return {
            "epsilon": gaussian,
            "sample": clean,
            "v_prediction": signal * gaussian - noise * clean,
            "velocity": gaussian - clean,
        }[kind]

    signal, noise = levels(process, table[0].time)
    start = signal * MEAN + spread(signal, noise) * z
    found = solve(table, start, predict, lambda: pytest.fail("a two-step solver draws no noise"))
    return (found - (MEAN + DEVIATION * z)).abs().max().item()


@pytest.mark.parametrize("name", PROCESSES)
def test_four_times_the_steps_leave_an_eighth_of_the_error_where_first_order_leaves_a_quarter(name):
    coarse, fine = (error(PROCESSES[name].of_order(2), steps) for steps in (24, 96))
    assert fine < 0.003
    assert coarse / fine > 8


@pytest.mark.parametrize("name", ["flow", "shifted flow"])
def test_fewer_steps_than_eulers_for_the_same_error(name):
    assert error(PROCESSES[name].of_order(2), 8) < error(PROCESSES[name], 16)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("steps", [1, 2, 5, 25])
def test_a_table_has_the_steps_asked_for_and_draws_nothing(name, steps):
    table = PROCESSES[name].of_order(2).table(steps)
    assert len(table) == steps
    assert table[0].previous == 0
    assert not any(step.draws_noise for step in table)
    times = [step.time for step in table]
    assert times == sorted(times, reverse=True)
    assert times[0] == (1000 if "flow" in name else 1000 * FIRST)


def test_a_shift_moves_the_steps_towards_noise():
    plain, shifted = (FlowProcess(order=2).table(8, shift) for shift in (1.0, 3.0))
    assert all(later.time > step.time for step, later in zip(plain[1:], shifted[1:], strict=True))


@pytest.mark.parametrize("order", [0, 3, -1, True])
def test_other_orders_are_refused(order):
    for process in PROCESSES.values():
        with pytest.raises(UsageError, match="diffusion_order"):
            process.of_order(order)


def test_the_first_order_is_the_published_one():
    for process in PROCESSES.values():
        assert process.of_order(1) == process
        assert process.of_order(2).of_order(1).table(25) == process.table(25)
