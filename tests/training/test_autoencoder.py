"""Batches follow from the step, the loss sees what it should, and exported latents have unit scale."""

import pytest
import torch

from nova.autoencoders.adapter import Autoencoder
from nova.checkpoints.folder import load_autoencoder, read_json
from nova.data.moving_digits import World
from nova.training import autoencoder as training
from nova.training.autoencoder import (
    AutoencoderRun,
    AutoencoderSize,
    autoencoder_task,
    export_autoencoder,
    kl_divergence,
    new_autoencoder,
    reconstruction_errors,
    to_pixels,
)
from nova.training.config import OptimizerConfig, WorldConfig
from nova.training.train import train


@pytest.fixture
def config() -> AutoencoderRun:
    return AutoencoderRun(
        steps=30,
        batch_size=1,
        precision="float32",
        world=WorldConfig(size=32, frames=5),
        model=AutoencoderSize(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4),
        optimizer=OptimizerConfig(learning_rate=3e-3, ema_decay=0.5),
    )


def test_pixels_are_those_of_the_clip():
    frames = World(size=32, frames=5).sample(0).frames
    pixels = to_pixels([frames])
    assert pixels.shape == (1, 3, 5, 32, 32)
    back = ((pixels[0] + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
    assert (back == frames).all()


def test_a_run_begins_on_crops_and_then_sees_all_three_kinds(config):
    config = config.model_copy(update={"crop_steps": 3, "crop_frames": 3})
    task = autoencoder_task(config, new_autoencoder(config))
    crop, image, clip = (4, 3, 3, 16, 16), (4, 3, 1, 32, 32), (1, 3, 5, 32, 32)
    shapes = [tuple(task.batch(step, range(1)).pixels.shape) for step in range(30)]
    assert shapes[:3] == [crop] * 3
    assert set(shapes) == {crop, image, clip}
    for step in (0, 5):
        assert len(task.ids(step, range(1))) == shapes[step][0]


def test_a_batch_in_parts_is_the_same_batch(config):
    config = config.model_copy(update={"batch_size": 3})
    task = autoencoder_task(config, new_autoencoder(config))
    for step in range(6):
        whole, parts = task.batch(step, range(3)), [task.batch(step, range(1)), task.batch(step, range(1, 3))]
        assert torch.equal(whole.pixels, torch.cat([part.pixels for part in parts]))
        assert torch.equal(whole.noise, torch.cat([part.noise for part in parts]))
        assert task.ids(step, range(3)) == [*task.ids(step, range(1)), *task.ids(step, range(1, 3))]


def test_a_crop_shows_the_digit(config):
    config = config.model_copy(update={"crop_steps": 20})
    task = autoencoder_task(config, new_autoencoder(config))
    for step in range(5):
        assert (task.batch(step, range(1)).pixels.amax(dim=(1, 2, 3, 4)) > 0).all()


def test_batch_and_loss_follow_from_the_step(config):
    first, second = (autoencoder_task(config, new_autoencoder(config)) for _ in range(2))
    for step in (0, 7):
        found = first.objective(first.batch(step, range(1))).parts["loss"]
        again = second.objective(second.batch(step, range(1))).parts["loss"]
        assert torch.equal(found, again)
    assert not torch.equal(first.batch(0, range(1)).noise[:1], first.batch(1, range(1)).noise[:1])


def test_errors_are_zero_for_the_clip_itself_and_count_ink_more():
    pixels = torch.full((1, 3, 1, 16, 16), -1.0)
    pixels[..., 4:8, 4:8] = 1.0
    assert [float(error) for error in reconstruction_errors(pixels, pixels, 6.0)] == [0.0, 0.0, 0.0]
    on_ink, on_black = pixels.clone(), pixels.clone()
    on_ink[..., 5, 5] -= 0.5
    on_black[..., 14, 14] += 0.5
    for ink, black in zip(
        reconstruction_errors(on_ink, pixels, 6.0), reconstruction_errors(on_black, pixels, 6.0), strict=True
    ):
        assert float(ink) == pytest.approx(7 * float(black), rel=1e-4)
    for ink, black in zip(
        reconstruction_errors(on_ink, pixels, 0.0), reconstruction_errors(on_black, pixels, 0.0), strict=True
    ):
        assert float(ink) == pytest.approx(float(black), rel=1e-4)


def test_divergence_is_that_of_normals():
    moments = torch.tensor([0.3, 1.5]).reshape(1, 2, 1, 1, 1)
    posterior = torch.distributions.Normal(0.3, torch.exp(torch.tensor(0.75)))
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(moments), expected)


def test_training_lowers_the_loss_and_the_export_scales_its_latents(config, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "TEST_CLIPS", 2)
    monkeypatch.setattr(training, "SCALE_CLIPS", 16)
    model = new_autoencoder(config)
    task = autoencoder_task(config, model)
    with torch.no_grad():
        before = [float(task.objective(task.batch(step, range(1))).parts["loss"]) for step in range(5)]
    train(task, config, tmp_path, quiet=True)
    with torch.no_grad():
        after = [float(task.objective(task.batch(step, range(1))).parts["loss"]) for step in range(5)]
    assert sum(after) < 0.9 * sum(before)

    figures = export_autoencoder(model, config, tmp_path / "model")
    assert figures["psnr"] > 5
    kind = read_json(tmp_path / "model" / "config.json")["_class_name"]
    loaded = Autoencoder(load_autoencoder(tmp_path / "model", kind, torch.float32))
    world = World(config.world.size, config.world.frames, config.world.seed)
    clips = to_pixels([world.sample(index).frames for index in range(len(world) - 16, len(world))])
    with torch.no_grad():
        latents = loaded.latents(loaded.encode(clips))
    assert float(latents.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(latents.std()) == pytest.approx(1.0, abs=0.01)
