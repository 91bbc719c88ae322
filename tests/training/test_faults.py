"""A step that finds no memory, or no other process, says what to do about it in one line."""

from __future__ import annotations

import pytest
import torch

from nova.errors import ResourceError
from nova.training.cluster import Cluster
from nova.training.config import RunConfig
from nova.training.faults import explained

SAMPLE = "9 latent frames of 60 x 96 in 4 channels"


def _said(error: Exception, cluster: Cluster = Cluster(), **fields: object) -> str:  # noqa: B008  (frozen)
    config = RunConfig(steps=1, batch_size=16, **fields)
    with pytest.raises(ResourceError) as raised, explained(3, SAMPLE, config, cluster):
        raise error
    return str(raised.value)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
def test_too_little_memory_names_the_samples_and_what_may_be_set(error: Exception) -> None:
    said = _said(error, micro_batch=8)
    assert "step 3: not enough memory on cpu for 8 samples at once, of 16 in a batch" in said
    assert SAMPLE in said
    for knob in (
        "micro_batch (now 8)",
        "recompute=blocks (now nothing)",
        "sharding=full on several devices (now none)",
    ):
        assert knob in said
    assert "--dry-run" in said
    assert "\n" not in said


def test_what_is_set_already_is_not_proposed() -> None:
    said = _said(torch.OutOfMemoryError("out"), micro_batch=1, recompute="blocks", sharding="full")
    assert "micro_batch (now" not in said
    assert "recompute=" not in said
    assert "sharding=" not in said
    assert "a smaller model" in said


def test_a_lost_process_is_told_from_an_error_of_this_one() -> None:
    assert "another process of the run is gone" in _said(RuntimeError("Connection closed by peer"), Cluster(0, 2))
    with (
        pytest.raises(RuntimeError, match="^Connection"),
        explained(0, SAMPLE, RunConfig(steps=1, batch_size=1), Cluster()),
    ):
        raise RuntimeError("Connection closed by peer")
