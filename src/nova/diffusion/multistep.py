"""Two-step solvers: fewer steps for the same error, since each also knows the prediction before.

Without fresh noise a sample moves along a curve. For every kind of prediction there is a factor by which to divide it,
and a variable in which to move, so that what the network predicts is the curve's slope:

    prediction     divide by   move in            of a sample  signal · clean + noise · gaussian
    epsilon        signal      noise / signal
    sample         noise       signal / noise
    v_prediction   1           the angle of (signal, noise)
    velocity       1           noise              flow matching, where signal = 1 - noise

Two slopes at unequal distances give the Adams–Bashforth step of second order. For epsilon this is the solver of
Zhang and Chen (arXiv 2204.13902, ρAB-DEIS); first steps, with no slope before them, are DDIM's or Euler's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nova.diffusion.process import SolverStep
from nova.errors import UsageError

ORDERS = (1, 2)

Level = tuple[float, float]
"""Factors of clean sample and noise at some time."""

_CURVES: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "epsilon": lambda signal, noise: (signal, noise / signal),
    "sample": lambda signal, noise: (noise, signal / noise),
    "v_prediction": lambda signal, noise: (1.0, math.atan2(noise, signal)),
    "velocity": lambda signal, noise: (1.0, noise),
}


def known_order(order: int) -> int:
    """`order`, if there is a solver of it."""
    if order not in ORDERS or isinstance(order, bool):
        raise UsageError(f"diffusion_order: {order!r}; use 1 or 2")
    return order


def two_step(prediction: str, times: Sequence[float], levels: Sequence[Level]) -> tuple[SolverStep, ...]:
    """The table through `levels`, one more than there are `times`: the last is where the chain ends."""
    curve = _CURVES[prediction]
    rows: list[SolverStep] = []
    before = 0.0
    for time, now, then in zip(times, levels[:-1], levels[1:], strict=True):
        if prediction == "sample" and then[1] == 0:  # the clean sample itself, infinitely far along the curve
            rows.append(SolverStep(time=time, sample=0.0, prediction=1.0))
            break
        (factor, start), (later, end) = curve(*now), curve(*then)
        step = end - start
        ahead = step / (2 * before) if before else 0.0
        rows.append(
            SolverStep(
                time=time,
                sample=later / factor,
                prediction=later * step * (1 + ahead),
                previous=-later * step * ahead,
            )
        )
        before = step
    return tuple(rows)
