"""The recipes of the paper: published shapes and numbers, stages that fit onto each other, and a step of each kind."""

import re

import numpy as np
import pytest
import torch

from nova.autoencoders.adapter import Autoencoder
from nova.data.latents import LatentDataset
from nova.data.manifest import publish_manifest
from nova.data.samples import ShardSample
from nova.data.shards import Header, Model, write_shard
from nova.models.config import published_size
from nova.recipes.paper import SIZES, recipes
from nova.training.cluster import Cluster
from nova.training.optimizer import adamw
from nova.training.train import freeze, split_batch
from nova.training.transformer import TransformerRun, TransformerSize, new_transformer, transformer_task
from tests.training.samples import TEXT_DIM, small_autoencoder

RECIPES = recipes()
SHAPES = {  # pixels and latent frames of each stage
    **{f"t2i-{side}": {"height": side, "width": side} for side in (256, 512, 1024)},
    "t2v-480": {"height": 480, "width": 768, "latent_frames": 9},
    "c2i-256": {"height": 256, "width": 256, "classes": 1000},
}
PUBLISHED = {  # samples of a batch, steps, EMA decay
    "t2i-256": (4096, 300_000, 0.98),
    "t2i-512": (2048, 150_000, 0.98),
    "t2i-1024": (1024, 30_000, 0.98),
    "t2v-480": (512, 80_000, 0.97),
}


def network(name, initial=None):
    """The network of a recipe, without weights."""
    config = RECIPES[name]()
    size = config.model
    with torch.device("meta"):
        return new_transformer(config, (4, size.latent_frames, size.latent_height, size.latent_width), 2560, initial)


def test_every_stage_comes_in_every_size():
    stages = {*SHAPES, "t2v-images-256", "t2v-images-512"}
    assert set(RECIPES) == {f"{stage}-{size.lower()}" for stage in stages for size in SIZES}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", SHAPES)
def test_shapes_are_the_published_ones(stage, size):
    published = published_size(size, **SHAPES[stage])
    model = RECIPES[f"{stage}-{size.lower()}"]().model
    assert model == TransformerSize(**{name: getattr(published, name) for name in TransformerSize.model_fields})


@pytest.mark.parametrize("stage", SHAPES)
def test_the_network_has_that_shape(stage):
    assert network(f"{stage}-0.3b").shape == published_size("0.3B", **SHAPES[stage])


@pytest.mark.parametrize("name", RECIPES)
def test_what_all_stages_share(name):
    config = RECIPES[name]()
    optimizer = config.optimizer
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay) == (0.9, 0.95, 0.02)
    assert optimizer.learning_rate == pytest.approx(1e-4 * config.batch_size / 256)
    assert (optimizer.schedule, config.precision, config.lora) == ("constant", "bfloat16", None)
    assert (config.caption_dropout, config.repeats, config.mask_std, config.mask_low) == (0.1, 4, 0.25, 0.7)
    assert config.batch_size % config.micro_batch == 0
    assert TransformerRun.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("stage", PUBLISHED)
def test_published_numbers(stage):
    config = RECIPES[f"{stage}-0.6b"]()
    assert (config.batch_size, config.steps, config.optimizer.ema_decay) == PUBLISHED[stage]
    assert config.optimizer.ema_every == 100
    assert config.diffusion == ("ddpm" if stage == "t2v-480" else "flow")


@pytest.mark.parametrize(
    "chain",
    [("t2i-256-0.3b", "t2i-512-0.3b", "t2i-1024-0.3b"), ("t2v-images-256-0.3b", "t2v-images-512-0.3b", "t2v-480-0.3b")],
    ids=["images", "video"],
)
def test_a_stage_goes_on_where_the_one_before_it_writes(chain):
    before = None
    for name, earlier in zip(chain, (None, *chain), strict=False):
        before = network(name, before)  # refuses weights that don't fit
        assert RECIPES[name]().initial == (None if earlier is None else f"runs/{earlier}")
        commands = dict(re.findall(r"nova train (\S+) --output (\S+)", RECIPES[name].func.__doc__))
        assert commands[name.replace("0.3b", "0.6b")] == f"runs/{name}".replace("0.3b", "0.6b")


def shards(folder, frames):
    """Six samples of 4 x 4 cells, with captions, their features, and labels."""
    random = np.random.default_rng(0)
    model = Model(id="made up", sha256="0" * 64)
    samples = [
        ShardSample(
            id=str(index),
            moments=random.standard_normal((8, frames, 4, 4)).astype(np.float16),
            captions=("short", "a longer one"),
            label=index,
            motion=3.0,
            fps=12.0,
            text=tuple(random.standard_normal((tokens, TEXT_DIM)).astype(np.float16) for tokens in (1, 3)),
        )
        for index in range(6)
    ]
    folder.mkdir()
    write_shard(folder / "0.parquet", samples, Header(autoencoder=model, text_encoder=model))
    publish_manifest(folder)
    return LatentDataset(folder)


@pytest.mark.parametrize("stage", ["t2i-256", "t2v-images-256", "t2v-480", "c2i-256"])
def test_each_kind_of_stage_takes_a_step(stage, tmp_path):
    recipe = RECIPES[f"{stage}-0.3b"]()
    narrow = {"width": 32, "heads": 2, "denoiser_width": 32, "text_tokens": 4, "latent_height": 4, "latent_width": 4}
    size = recipe.model.model_copy(update=narrow)
    config = recipe.model_copy(update={"model": size, "batch_size": 4, "micro_batch": 2})
    samples = shards(tmp_path / "data", frames=size.latent_frames)
    model = new_transformer(config, (4, size.latent_frames, 4, 4), TEXT_DIM, None)
    freeze(model, config.freeze)
    task = transformer_task(config, model, samples, Autoencoder(small_autoencoder()))
    first, second = (task.objective(task.batch(0, places)) for places in split_batch(config, Cluster()))
    ((first.parts["loss"] + second.parts["loss"]) / (first.weight + second.weight)).backward()
    gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert bool(config.freeze) == (not any(name.startswith("temporal.embed") for name in gradients))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    adamw(model, config.optimizer).step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
