"""The transformer's task is a function of the step, and video starts from what images taught."""

import pytest
import torch

from nova.autoencoders.video import VideoAutoencoder
from nova.data.moving_digits import World
from nova.pipeline import NovaPipeline
from nova.text import encode_text
from nova.training.config import OptimizerConfig, WorldConfig
from nova.training.language import LanguageRun, LanguageSize, new_language_model, world_tokenizer
from nova.training.latents import EncodedClips, encoded_clips
from nova.training.train import train
from nova.training.transformer import (
    DEFAULT_MOTION,
    Inputs,
    TransformerRun,
    TransformerSize,
    export_transformer,
    new_transformer,
    transformer_task,
)

SIZE = TransformerSize(
    width=32,
    heads=2,
    temporal_layers=1,
    spatial_encoder_layers=1,
    spatial_decoder_layers=1,
    denoiser_width=32,
    denoiser_blocks=1,
    scale_shift_rank=4,
)


def run(frames: int = 5, **changes: object) -> TransformerRun:
    fields = {
        "steps": 2,
        "batch_size": 6,
        "precision": "float32",
        "model": SIZE,
        "world": WorldConfig(size=32, frames=frames),
        "optimizer": OptimizerConfig(learning_rate=3e-3),
    }
    return TransformerRun.model_validate(fields | changes)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    torch.manual_seed(0)
    vae = VideoAutoencoder(block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2)
    language = new_language_model(LanguageRun(steps=1, batch_size=1, model=LanguageSize(width=16, layers=1, heads=2)))
    return Inputs(vae.eval(), language.encoder.eval(), world_tokenizer())


@pytest.fixture(scope="module")
def clips(inputs, tmp_path_factory) -> EncodedClips:
    file = tmp_path_factory.mktemp("clips") / "latents"
    return encoded_clips(file, World(size=32, frames=5), 12, inputs.autoencoder)


def test_video_starts_from_the_image_weights(inputs):
    image = new_transformer(run(frames=1, seed=1), inputs, None)
    video = new_transformer(run(), inputs, image)
    assert not image.shape.is_video
    assert video.shape.is_video
    assert video.shape.scale_shift_rank == 4
    known = image.state_dict()
    for name, tensor in video.state_dict().items():
        assert name not in known or torch.equal(tensor, known[name])
    assert set(known) < set(video.state_dict())
    assert not video.text.norm.weight.requires_grad


def test_first_weights_follow_from_the_seed(inputs):
    first, second, other = (new_transformer(run(seed=seed), inputs, None).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["text.proj.weight"], other["text.proj.weight"])


def test_batch_and_loss_follow_from_the_step(inputs, clips):
    model = new_transformer(run(), inputs, None)
    first, second = transformer_task(run(), model, inputs, clips), transformer_task(run(), model, inputs, clips)
    losses = []
    for step in (0, 1):
        batch = first.batch(step)
        assert torch.equal(batch.latents, second.batch(step).latents)
        losses.append(first.loss(model, batch, step)["loss"])
        assert torch.equal(losses[-1], second.loss(model, second.batch(step), step)["loss"])
    assert not torch.equal(*losses)


def test_rows_are_those_of_the_short_or_the_long_caption(inputs, clips):
    model = new_transformer(run(), inputs, None)
    task = transformer_task(run(batch_size=12), model, inputs, clips)
    seen = set()
    for step in range(3):
        batch = task.batch(step)
        for row, index, motion in zip(batch.rows, task.ids(step), batch.motion, strict=True):
            both = [
                model.text.rows(encode_text(inputs.tokenizer, inputs.text_encoder, [caption], SIZE.text_tokens))[0]
                for caption in (clips.short[index], clips.long[index])
            ]
            matches = [torch.allclose(row, one, atol=1e-2) for one in both]
            assert any(matches)
            seen.add((tuple(matches), bool(motion == DEFAULT_MOTION)))
            assert motion in (DEFAULT_MOTION, clips.motion[index])
    assert {told for _, told in seen} == {True, False}
    assert {(True, False), (False, True)} <= {matches for matches, _ in seen}


def test_images_know_nothing_of_motion(inputs, clips):
    images = EncodedClips(clips.moments[:, :, :1], clips.motion, clips.short, clips.long)
    config = run(frames=1)
    model = new_transformer(config, inputs, None)
    task = transformer_task(config, model, inputs, images)
    assert set(task.loss(model, task.batch(0), 0)) == {"loss"}
    video = new_transformer(run(), inputs, None)
    task = transformer_task(run(), video, inputs, clips)
    assert set(task.loss(video, task.batch(0), 0)) == {"loss", "first", "later"}


def test_a_trained_model_is_exported_as_a_pipeline(inputs, clips, tmp_path):
    config = run(steps=30)
    model = new_transformer(config, inputs, None)
    task = transformer_task(config, model, inputs, clips)
    before = float(task.loss(model, task.batch(0), 0)["loss"])
    outcome = train(task, config, tmp_path, quiet=True)
    assert float(task.loss(model, task.batch(0), 0)["loss"]) < before

    averaged = outcome.state.ema.applied_to(model)
    figures = export_transformer(averaged, config, inputs, tmp_path / "model")
    assert 0 < figures["megabytes"] < 5
    assert averaged.dtype == torch.float32
    pipe = NovaPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a red 3", num_inference_steps=2, num_diffusion_steps=2, output_type="np", generator=0).frames
    assert made.shape == (1, 5, 32, 32, 3)
    for name, tensor in averaged.state_dict().items():
        torch.testing.assert_close(pipe.transformer.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
