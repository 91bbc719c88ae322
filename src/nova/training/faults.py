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
def explained(step: int, sample: str, config: RunConfig, cluster: Cluster) -> Iterator[None]:
    """Turn an error of the runtime in `step` into a ResourceError that says what to do, where it is known.

    `sample` says what one sample of the step is.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error).lower()
        if isinstance(error, torch.OutOfMemoryError) or any(words in said for words in _NO_MEMORY):
            raise ResourceError(_no_memory(step, sample, config, cluster)) from error
        if cluster.size > 1 and any(word in said for word in _GONE):
            raise ResourceError(
                f"step {step}: another process of the run is gone ({str(error).splitlines()[0][:200]}); look at the "
                "first error of all processes, then start them again: they go on from the last checkpoint"
            ) from error
        raise


def _no_memory(step: int, sample: str, config: RunConfig, cluster: Cluster) -> str:
    part = config.micro_batch or config.batch_size // cluster.size
    remedies = [f"a smaller micro_batch (now {part})"] * (part > 1)
    remedies += [f"recompute=blocks (now {config.recompute})"] * (config.recompute != "blocks")
    remedies += [f"sharding=full on several devices (now {config.sharding})"] * (config.sharding != "full")
    remedies += ["a smaller model, or smaller samples"] * (not remedies)
    return (
        f"step {step}: not enough memory on {cluster.device} for {part} samples at once, of {config.batch_size} in a "
        f"batch, each {sample}; try {', '.join(remedies)}; --dry-run tells what the largest step needs"
    )
