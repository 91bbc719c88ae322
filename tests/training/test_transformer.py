"""The transformer's task is a function of the step, and video starts from what images taught."""

import dataclasses

import pytest
import torch

from nova.autoencoders.video import VideoAutoencoder
from nova.data.moving_digits import World
from nova.models.nova import NovaTransformer
from nova.pipeline import NovaPipeline
from nova.text import encode_text
from nova.training.config import OptimizerConfig
from nova.training.language import LanguageRun, LanguageSize, new_language_model, world_tokenizer
from nova.training.latents import ClipSource, EncodedClips, encoded_clips
from nova.training.train import train
from nova.training.transformer import (
    DEFAULT_MOTION,
    DigitsData,
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


VIDEO, IMAGE = (4, 2, 4, 4), (4, 1, 4, 4)


def run(frames: int = 5, **changes: object) -> TransformerRun:
    fields = {
        "steps": 2,
        "batch_size": 6,
        "precision": "float32",
        "model": SIZE,
        "data": DigitsData(size=32, frames=frames, clips=12),
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


@pytest.fixture(scope="module")
def source(inputs, clips) -> ClipSource:
    captions = [*clips.short, *clips.long]
    rows = encode_text(inputs.tokenizer, inputs.text_encoder, captions, SIZE.text_tokens)
    return ClipSource(clips, dict(zip(captions, rows, strict=True)))


def video(config: TransformerRun | None = None) -> NovaTransformer:
    return new_transformer(config or run(), VIDEO, 16, None)


def test_video_starts_from_the_image_weights():
    image = new_transformer(run(frames=1, seed=1), IMAGE, 16, None)
    made = new_transformer(run(), VIDEO, 16, image)
    assert not image.shape.is_video
    assert made.shape.is_video
    assert made.shape.scale_shift_rank == 4
    known = image.state_dict()
    for name, tensor in made.state_dict().items():
        assert name not in known or torch.equal(tensor, known[name])
    assert set(known) < set(made.state_dict())
    assert not made.text.norm.weight.requires_grad


def test_first_weights_follow_from_the_seed():
    first, second, other = (video(run(seed=seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["text.proj.weight"], other["text.proj.weight"])


def test_batch_and_loss_follow_from_the_step(inputs, source):
    model = video()
    first, second = (transformer_task(run(), model, source, inputs.autoencoder) for _ in range(2))
    losses = []
    for step in (0, 1):
        batch = first.batch(step, range(6))
        assert torch.equal(batch.latents, second.batch(step, range(6)).latents)
        losses.append(first.objective(batch).parts["loss"])
        assert torch.equal(losses[-1], second.objective(second.batch(step, range(6))).parts["loss"])
    assert not torch.equal(*losses)


@pytest.mark.parametrize("mask_per", ["step", "sample"])
def test_a_batch_in_parts_is_the_same_batch(inputs, source, mask_per):
    config = run(mask_per=mask_per, mask_low=0.0, mask_std=1.0, context_noise=0.2)
    task = transformer_task(config, video(config).double(), source, inputs.autoencoder)

    def sums(*parts: range) -> tuple[float, float]:
        batches = [task.batch(3, part) for part in parts]
        doubled = [
            dataclasses.replace(one, latents=one.latents.double(), motion=one.motion.double()) for one in batches
        ]
        found = [task.objective(one) for one in doubled]
        return sum(float(one.parts["loss"]) for one in found), sum(one.weight for one in found)

    whole = sums(range(6))
    assert sums(range(2), range(2, 6)) == pytest.approx(whole, rel=1e-12)
    assert sums(*(range(place, place + 1) for place in range(6))) == pytest.approx(whole, rel=1e-12)


def test_an_epoch_sees_every_sample_once(inputs, source):
    task = transformer_task(run(), video(), source, inputs.autoencoder)
    seen = [name for step in (0, 1) for name in task.ids(step, range(6))]
    assert sorted(seen) == sorted(f"clip {index}" for index in range(12))


def test_rows_are_those_of_the_short_or_the_long_caption(inputs, clips, source):
    model = video()
    task = transformer_task(run(batch_size=12, motion_dropout=0.5), model, source, inputs.autoencoder)
    seen = set()
    for step in range(3):
        batch = task.batch(step, range(12))
        names = task.ids(step, range(12))
        for row, name, motion in zip(batch.condition, names, batch.motion, strict=True):
            index = int(name.split()[1])
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


def test_captions_without_features_are_encoded_in_the_step(inputs, source):
    bare = dataclasses.replace(source, features=None)
    task = transformer_task(run(), video(), source, inputs.autoencoder)

    def encode(captions):
        return encode_text(inputs.tokenizer, inputs.text_encoder, list(captions), SIZE.text_tokens)

    late = transformer_task(run(), task.model, bare, inputs.autoencoder, encode)
    batch = late.batch(0, range(6))
    assert batch.condition is None
    expected = task.objective(task.batch(0, range(6))).parts["loss"]
    torch.testing.assert_close(late.objective(batch).parts["loss"], expected)


def test_images_know_nothing_of_motion(inputs, clips, source):
    images = dataclasses.replace(source, clips=dataclasses.replace(clips, moments=clips.moments[:, :, :1]))
    model = new_transformer(run(frames=1), IMAGE, 16, None)
    task = transformer_task(run(frames=1), model, images, inputs.autoencoder)
    assert set(task.objective(task.batch(0, range(6))).parts) == {"loss"}
    task = transformer_task(run(), video(), source, inputs.autoencoder)
    assert set(task.objective(task.batch(0, range(6))).parts) == {"loss", "first", "later"}


def test_weights_of_the_parts_add_up(inputs, source):
    model, parts = video(), {}
    for first, later in ((1, 1), (2, 0), (0, 3)):
        config = run(first_weight=first, later_weight=later)
        task = transformer_task(config, model, source, inputs.autoencoder)
        parts[first, later] = {name: float(one) for name, one in task.objective(task.batch(0, range(6))).parts.items()}
    one = parts[1, 1]
    assert parts[2, 0]["loss"] == pytest.approx(2 * one["first"])
    assert parts[0, 3]["loss"] == pytest.approx(3 * one["later"])


def test_a_trained_model_is_exported_as_a_pipeline(inputs, source, tmp_path):
    config = run(steps=30)
    task = transformer_task(config, video(config), source, inputs.autoencoder)
    before = float(task.objective(task.batch(0, range(6))).parts["loss"])
    outcome = train(task, config, tmp_path, quiet=True)
    assert float(task.objective(task.batch(0, range(6))).parts["loss"]) < before

    figures = export_transformer(outcome.model, config, inputs, tmp_path / "model")
    assert 0 < figures["megabytes"] < 5
    assert outcome.model.dtype == torch.float32
    pipe = NovaPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a red 3", num_inference_steps=2, num_diffusion_steps=2, output_type="np", generator=0).frames
    assert made.shape == (1, 5, 32, 32, 3)
    for name, tensor in outcome.model.state_dict().items():
        torch.testing.assert_close(pipe.transformer.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
