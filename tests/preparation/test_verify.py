"""What comes back of a prepared folder is what went in, as far as the autoencoder can; damage is told."""

import numpy as np
import pytest
import torch

from nova.checkpoints.locate import shipped_folder
from nova.data.moving_digits import World
from nova.errors import DataError
from nova.media import read_image, write_video
from nova.preparation.encode import Encoder, ModelFolders, load_models
from nova.preparation.prepare import prepare
from nova.preparation.rules import Bucket, Rules
from nova.preparation.sources import list_items
from nova.preparation.verify import verify, write_sheet
from tests.preparation.made import encoder

RULES = Rules(buckets=(Bucket(frames=17, height=64, width=64),))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Three clips of digits, prepared with the shipped model's autoencoder."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "media").mkdir()
    for number in range(3):
        sample = World().sample(number)
        write_video(folder / "media" / f"{number}.mp4", sample.frames, 12)
        (folder / "media" / f"{number}.txt").write_text(sample.short)
    models = load_models(ModelFolders(shipped_folder() / "vae", "digits"), torch.device("cpu"), torch.float32)
    prepare(list_items(folder / "media"), folder / "out", RULES, Encoder(models, models.header(RULES)))
    return folder, models


def test_clips_come_back(digits, tmp_path):
    folder, models = digits
    found = verify(folder / "out", list_items(folder / "media"), RULES, models, tmp_path)
    assert (found.samples, found.shards) == (3, 1)
    assert [pair.id for pair in found.pairs] == ["0.mp4", "1.mp4", "2.mp4"]
    assert all(18 < pair.psnr < 45 for pair in found.pairs)
    write_sheet(tmp_path / "sheet.png", found.pairs)
    sheet = read_image(tmp_path / "sheet.png")
    assert np.ptp(sheet) == 255


def test_a_source_that_changed_is_not_compared(digits, tmp_path):
    folder, models = digits
    items = [item for item in list_items(folder / "media") if item.id != "1.mp4"]
    found = verify(folder / "out", items, RULES, models, tmp_path)
    assert [pair.psnr is None for pair in found.pairs] == [False, True, False]


def test_a_flipped_byte_and_other_weights_are_told(digits, tmp_path):
    folder, models = digits
    with pytest.raises(DataError, match="made with other weights of 'digits'"):
        verify(folder / "out", [], RULES, encoder().models, tmp_path)
    (shard,) = (folder / "out").glob("*.parquet")
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
        with pytest.raises(DataError, match="1 of 1 shards are damaged"):
            verify(folder / "out", [], RULES, models, tmp_path)
    finally:
        shard.write_bytes(whole)
