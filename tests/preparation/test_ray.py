"""A Ray cluster makes the same bytes as this machine alone."""

import pytest
import torch

from nova.checkpoints.locate import shipped_folder
from nova.data.moving_digits import World
from nova.media import write_video
from nova.preparation.encode import Encoder, ModelFolders, load_models
from nova.preparation.pool import Limits
from nova.preparation.prepare import prepare
from nova.preparation.ray import Cluster, FarEncoder
from nova.preparation.rules import Bucket, Rules
from nova.preparation.sources import list_items
from tests.preparation.made import published

RULES = Rules(buckets=(Bucket(frames=17, height=64, width=64),), duplicates=2)


@pytest.mark.slow
def test_a_cluster_publishes_the_same(tmp_path):
    ray = pytest.importorskip("ray")
    (tmp_path / "media").mkdir()
    for number in range(6):
        sample = World().sample(number % 5)  # the last is a duplicate of the first
        write_video(tmp_path / "media" / f"{number}.mp4", sample.frames, 12)
        (tmp_path / "media" / f"{number}.txt").write_text(sample.short)
    (tmp_path / "media" / "3.mp4").write_bytes(b"no video")
    folders = ModelFolders(shipped_folder() / "vae", "digits")
    models = load_models(folders, torch.device("cpu"), torch.float32)
    here = Encoder(models, models.header(RULES))
    prepare(list_items(tmp_path / "media"), tmp_path / "here", RULES, here)
    there = FarEncoder(models, models.header(RULES))
    cluster = Cluster(folders, RULES, torch.float32, Limits())
    try:
        prepare(list_items(tmp_path / "media"), tmp_path / "there", RULES, there, elsewhere=cluster.inspect)
    finally:
        ray.shutdown()
    assert published(tmp_path / "there") == published(tmp_path / "here")
