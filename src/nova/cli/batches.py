"""Which outputs are made together.

The outputs of a job are cut into batches once, by their numbers, before anything is known of what is there already. On
a CPU an output does not depend on its batch, and only what is missing of a batch is made. On a GPU the last bits of an
output depend on the shapes of its batch, so a batch with a missing output is made whole, and what is missing of it is
written: a job that was killed ends with the bytes of one that was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence

MOST = 64
"""Outputs in a batch that a GPU is filled with: beyond it a larger one is hardly faster."""
_FILLED = 0.8
"""Part of the free memory that a batch may take; allocators leave gaps, and graphs keep pools of their own."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Outputs made together, and those of them that are written."""

    numbers: list[int]
    missing: list[int]


def batches(numbers: Sequence[int], size: int, done: Container[int], whole: bool) -> list[Batch]:
    """Cut `numbers` into batches of at most `size` and leave out what is `done`: of a batch, or `whole` batches."""
    found = []
    for start in range(0, len(numbers), size):
        batch = numbers[start : start + size]
        missing = [number for number in batch if number not in done]
        if missing:
            found.append(Batch(list(batch) if whole else missing, missing))
    return found


def filling(one: int, free: int) -> int:
    """How many outputs fill a device with `free` bytes if each takes `one` beside what is there already."""
    return max(1, min(MOST, int(free * _FILLED) // max(one, 1)))


def measured(make: Callable[[], object], device: str) -> int:
    """The batch that fills a GPU whose memory `make`, which makes one output, shows the need of."""
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    free, _ = torch.cuda.mem_get_info(device)
    make()
    return filling(torch.cuda.max_memory_allocated(device) - before, free)
