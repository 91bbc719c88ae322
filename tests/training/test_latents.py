"""Clips are encoded once; the file that holds them is used again only for what it was made from."""

import pytest
import torch

from nova.autoencoders.adapter import Autoencoder
from nova.autoencoders.video import VideoAutoencoder
from nova.data.moving_digits import World
from nova.errors import CheckpointError
from nova.training.autoencoder import to_pixels
from nova.training.latents import encoded_clips
from nova.weights import weights_digest

WORLD = World(size=16, frames=5)


def autoencoder(seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    return Autoencoder(VideoAutoencoder(block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2))


def test_what_is_kept_is_what_the_autoencoder_says_of_each_clip(tmp_path):
    told: list[int] = []
    clips = encoded_clips(tmp_path / "latents", WORLD, 11, autoencoder(), progress=told.append)
    assert told == [8, 11]
    sample = WORLD.sample(10)
    with torch.no_grad():
        expected = autoencoder().encode(to_pixels([sample.frames]))
    torch.testing.assert_close(clips.moments[10:].float(), expected, atol=2e-3, rtol=2e-3)
    assert clips.motion[10] == pytest.approx(sample.motion)
    assert (clips.short[10], clips.long[10]) == (sample.short, sample.long)


def test_a_second_time_nothing_is_encoded(tmp_path):
    first = encoded_clips(tmp_path / "latents", WORLD, 3, autoencoder())
    second = encoded_clips(tmp_path / "latents", WORLD, 3, autoencoder(), progress=lambda done: pytest.fail("encoded"))
    assert torch.equal(first.moments, second.moments)
    assert torch.equal(first.motion, second.motion)
    assert (first.short, first.long) == (second.short, second.long)


@pytest.mark.parametrize(
    ("world", "count", "seed"), [(World(size=16, frames=5, seed=1), 3, 0), (WORLD, 4, 0), (WORLD, 3, 1)]
)
def test_other_clips_or_weights_are_encoded_anew(tmp_path, world, count, seed):
    first = encoded_clips(tmp_path / "latents", WORLD, 3, autoencoder())
    second = encoded_clips(tmp_path / "latents", world, count, autoencoder(seed))
    assert len(second.motion) == count
    assert count != 3 or not torch.equal(first.moments, second.moments)


def test_damage_is_refused(tmp_path):
    file = tmp_path / "latents"
    encoded_clips(file, WORLD, 3, autoencoder())
    data = file.read_bytes()
    for wrong in (data[:100], data[:-1], data[:-1] + bytes([data[-1] ^ 1])):
        file.write_bytes(wrong)
        with pytest.raises(CheckpointError, match="delete it to encode again"):
            encoded_clips(file, WORLD, 3, autoencoder())


def test_one_number_changes_the_name_of_the_weights():
    model = autoencoder().module
    before = weights_digest(model)
    assert before == weights_digest(autoencoder().module)
    with torch.no_grad():
        model.decoder.conv_out.bias[0] += 1e-6
    assert before != weights_digest(model)
