"""What is saved under compile, DDP or FSDP2 is read by a plain process, and the other way round. Row A15.

All of it: python -m pytest tests/reliability/test_shared_weights.py -m slow -s
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from torch import nn

from nova.training.checkpoint import checkpoints
from nova.training.cluster import Cluster
from nova.training.train import CHECKPOINTS
from tests.training.ranks import config_of, plain, together, told

WAYS = {
    "plain": (1, []),
    "compile": (1, ["compile=true"]),
    "DDP": (2, ["sharding=none"]),
    "FSDP2": (2, ["sharding=full"]),
}
"""Processes and settings of each way to train."""
LENGTH = "steps=2"


def names(folder: Path) -> set[str]:
    """The tensors in a run's newest checkpoint."""
    found: set[str] = set()
    for file in checkpoints(folder / CHECKPOINTS)[-1][1].glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            found.update(tensors.keys())
    return found


def averaged(folder: Path, way: str) -> str:
    """Let a run go on, or begin, in a way; a digest of its averaged weights, which all its processes agree on."""
    size, settings = WAYS[way]
    folder.mkdir(exist_ok=True)
    done = together(size, "plain", folder, LENGTH, *settings)
    digests = {one["average"] for one in told(done)}
    assert len(digests) == 1
    return digests.pop()


def digest(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_every_way_reads_what_plain_saved_and_plain_what_every_way_saved(tmp_path):
    saved = {way: averaged(tmp_path / way, way) for way in WAYS}
    for way, expected in saved.items():
        assert names(tmp_path / way) == names(tmp_path / "plain"), way
        assert digest(plain(Cluster(), tmp_path / way, config_of([LENGTH])).model) == expected, way
    for way in WAYS:
        assert averaged(tmp_path / "plain", way) == saved["plain"], way
    print(f"\nA15: {2 * len(WAYS)}/{2 * len(WAYS)} pairs of ways to save and to load: names and bits equal")
