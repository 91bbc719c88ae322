"""What a measurement reads from the machine: seconds, memory, and how fast it multiplies and copies.

And the one thing it is told: to keep the memory that a computation frees.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MATRIX = {"cpu": 2048, "cuda": 8192}
_COPIED = {"cpu": 1 << 28, "cuda": 1 << 32}
"""Side of the matrices multiplied, and bytes copied: both too much for a cache."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`."""


def seconds(act: Callable[[], object], device: torch.device) -> float:
    """How long `act` takes until `device` is done with it."""
    wait(device)
    start = time.perf_counter()
    act()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until `device` has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def device_name(device: torch.device) -> str:
    """What the device is called, such as `NVIDIA H200`; of a CPU its architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def matrix_product_flops(device: torch.device, dtype: torch.dtype, runs: int = 5) -> float:
    """Operations a second of a large square product of random numbers: the speed that work can be held against."""
    size = _MATRIX.get(device.type, 4096)
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    times = [seconds(lambda: left @ right, device) for _ in range(runs + 1)][1:]
    return 2 * size**3 / statistics.median(times)


def bandwidth(device: torch.device, runs: int = 5) -> float:
    """Bytes a second of a large copy within the device's memory, those read and those written."""
    size = _COPIED.get(device.type, 1 << 28)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    times = [seconds(lambda: target.copy_(source), device) for _ in range(runs + 1)][1:]
    return 2 * size / statistics.median(times)


def memory_now(device: torch.device) -> int | None:
    """Bytes this process holds on `device`; of main memory the resident ones, None where /proc doesn't tell."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS")


def forget_peak(device: torch.device) -> None:
    """Let `memory_peak` start from what is held now."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # where this is forbidden, the peak is that of the process's life
        _CLEAR.write_text("5", encoding="ascii")


def memory_peak(device: torch.device) -> int | None:
    """The most bytes held since `forget_peak`, counted as in `memory_now`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def keep_freed_memory() -> None:
    """Let this process keep the main memory that it frees, for what it allocates next.

    A training step frees gigabytes and needs them again in the next one. glibc would give most of them back to the
    system in between, and the page faults take a tenth of the step. Does nothing where another C library is at work, or
    where the user has told glibc something by MALLOC_* or GLIBC_TUNABLES.
    """
    told = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if told or platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most it takes; larger tensors still come from the system


def _status(field: str) -> int | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None
