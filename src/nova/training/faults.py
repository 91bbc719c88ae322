"""What goes wrong in a step for reasons outside it, in words: memory that is not enough, a process that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nova.errors import ResourceError
from nova.training.cluster import Cluster
from nova.training.config import RunConfig

_NO_MEMORY = ("can't allocate memory", "out of memory")
_GONE = ("connection", "socket", "gloo", "nccl", "timed out")


@contextmanager
def explained(step: int, config: RunConfig, cluster: Cluster) -> Iterator[None]:
    """Turn an error of the runtime in `step` into a ResourceError that says what to do, where it is known."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).lower()
        if isinstance(error, torch.OutOfMemoryError) or any(words in said for words in _NO_MEMORY):
            part = config.micro_batch or config.batch_size // cluster.size
            raise ResourceError(
                f"step {step}: not enough memory on {cluster.device} for {part} samples at once; "
                f"set a smaller micro_batch, recompute=blocks, or sharding=full on several devices"
            ) from error
        if cluster.size > 1 and any(word in said for word in _GONE):
            raise ResourceError(
                f"step {step}: another process of the run is gone ({str(error).splitlines()[0][:200]}); look at the "
                "first error of all processes, then start them again: they go on from the last checkpoint"
            ) from error
        raise
