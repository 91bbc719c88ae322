"""What is read from the machine: times include what they time, peaks see what was held and forget it."""

from __future__ import annotations

import time

import pytest
import torch

from nova import machine

CPU = torch.device("cpu")


def test_seconds_are_those_of_the_act() -> None:
    assert 0.05 <= machine.seconds(lambda: time.sleep(0.05), CPU) < 5


def test_a_peak_is_seen_and_forgotten() -> None:
    if machine.memory_now(CPU) is None:
        pytest.skip("this system has no /proc/self/status")
    size = 300 << 20
    machine.forget_peak(CPU)
    before = machine.memory_peak(CPU)
    held = torch.ones(size, dtype=torch.uint8)
    del held
    after = machine.memory_peak(CPU)
    assert before is not None
    assert after is not None
    assert after - before > size / 2
    machine.forget_peak(CPU)
    again = machine.memory_peak(CPU)
    assert again is not None
    assert again < after or after == machine.memory_now(CPU)


def test_speeds_are_those_of_a_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine._MATRIX, "cpu", 256)
    monkeypatch.setitem(machine._COPIED, "cpu", 1 << 22)
    assert 1e7 < machine.matrix_product_flops(CPU, torch.float32, runs=2) < 1e16
    assert 1e6 < machine.bandwidth(CPU, runs=2) < 1e14
