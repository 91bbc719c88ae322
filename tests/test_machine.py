"""What is read from the machine: times include what they time, peaks see what was held and forget it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
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


_KEEPING = """
import torch
from nova import machine
{before}
def work():
    return [torch.ones(5 << 20) for _ in range(20)]
work()
start = machine.memory_now(torch.device("cpu"))
held = work()
print(machine.memory_now(torch.device("cpu")) - start)
"""


def memory_taken(before: str, **variables: str) -> int:
    """Bytes that a process takes from the system for 400 MB which it has had and freed.

    Once only: glibc gives the first large blocks back, but then learns from them and may keep the next ones.
    """
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "GLIBC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", _KEEPING.format(before=before)],
        env=environment | variables,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
@pytest.mark.skipif(machine.memory_now(CPU) is None, reason="this system has no /proc/self/status")
def test_kept_memory_is_there_again_unless_the_user_says_otherwise() -> None:
    keep, most = "machine.keep_freed_memory()", 300 << 20
    assert memory_taken(keep) < most < memory_taken("")
    # A threshold of the user's own gives every block back at once.
    assert memory_taken(keep, MALLOC_MMAP_THRESHOLD_="65536") > most
