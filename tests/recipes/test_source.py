"""What a folder of shards is to a run: told about what is not read, and encoded on the device that trains."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import torch

from nova.data.manifest import publish_manifest
from nova.data.shards import Header, Model, ShardSample, write_shard
from nova.recipes import source
from nova.recipes.source import open_source
from nova.training.cluster import Cluster
from nova.training.latents import weights_digest
from nova.training.transformer import Inputs, LatentData
from tests.training.samples import latent_run, small_autoencoder


class TextEncoder:
    """Knows where it is."""

    device = torch.device("cpu")

    def to(self, device: torch.device) -> Self:
        self.device = device
        return self


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one shard, whose captions are not encoded."""
    header = Header(autoencoder=Model(id="made up", sha256=weights_digest(small_autoencoder())))
    sample = ShardSample(id="a", moments=np.zeros((8, 2, 4, 4), np.float16), captions=("a red 3",))
    write_shard(tmp_path / "0.parquet", [sample], header)
    publish_manifest(tmp_path)
    return tmp_path


def _opened(folder: Path, inputs: Inputs, device: str = "cpu") -> source.Opened:
    run = latent_run(data=LatentData(folder=str(folder)))
    return open_source(run, inputs, folder, Cluster(device=torch.device(device)), quiet=True)


def test_shards_that_are_not_read_are_told(folder: Path) -> None:
    inputs = Inputs(small_autoencoder())
    assert _opened(folder, inputs).notice is None
    shutil.copy(folder / "0.parquet", folder / "1.parquet")
    found = _opened(folder, inputs)
    assert found.shards.keys() == {"0.parquet"}
    assert found.notice is not None
    assert "1 shards are not in the manifest and not read, the first is 1.parquet" in found.notice


def test_captions_are_encoded_on_the_device_that_trains(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = Inputs(small_autoencoder(), TextEncoder())
    encode = _opened(folder, inputs, "meta").encode
    assert encode is not None
    assert inputs.text_encoder.device.type == "cpu"  # until it is needed
    monkeypatch.setattr(source, "encode_text", lambda tokenizer, encoder, *_: [torch.zeros(1, device=encoder.device)])
    assert encode(["a red 3"])[0].device.type == "meta"
