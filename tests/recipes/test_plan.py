"""A plan says what a run would take, in the order of its parts, and collects all that would stop it."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from nova.data.manifest import publish_manifest
from nova.data.samples import ShardSample
from nova.data.shards import Header, Model, write_shard
from nova.errors import CheckpointError, DataError, UsageError
from nova.recipes.digits import digits_tiny
from nova.recipes.overrides import override
from nova.recipes.plan import plan
from nova.training.transformer import LatentData, new_transformer
from nova.weights import weights_digest
from tests.training.samples import TEXT_DIM, latent_run, small_autoencoder

CPU = torch.device("cpu")


def planned(config, processes=1):
    """The plan of a run without parts."""
    (found,) = plan(config, processes, CPU)
    return found


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of an autoencoder, and of a text encoder's config."""
    folder = tmp_path_factory.mktemp("parts")
    small_autoencoder().save_pretrained(folder / "autoencoder")
    (folder / "text" / "text_encoder").mkdir(parents=True)
    (folder / "text" / "text_encoder" / "config.json").write_text(f'{{"hidden_size": {TEXT_DIM}}}')
    return {"autoencoder": str(folder / "autoencoder"), "text_encoder": str(folder / "text")}


def shards(folder, digest, shapes=((8, 2, 4, 4),), text_dim=TEXT_DIM, **fields):
    """A folder of latents, four samples of each shape."""
    folder.mkdir()
    model = Model(id="made up", sha256=digest)
    samples = [
        ShardSample(
            **{
                "id": f"{index} {shape}",
                "moments": np.zeros(shape, np.float16),
                "captions": ("a red 3",),
                "text": (np.zeros((3, text_dim), np.float16),),
            }
            | fields
        )
        for shape in shapes
        for index in range(4)
    ]
    write_shard(folder / "0.parquet", samples, Header(autoencoder=model, text_encoder=model))
    publish_manifest(folder)
    return LatentData(folder=str(folder))


@pytest.fixture
def run(parts, tmp_path):
    """A run on shards that fit it."""
    data = shards(tmp_path / "data", weights_digest(small_autoencoder()))
    return latent_run(data=data, **parts)


def problems(config, processes=1):
    return {type(problem): str(problem) for problem in planned(config, processes).problems}


def test_a_chain_is_planned_in_the_order_it_is_run():
    plans = list(plan(digits_tiny(), 1, CPU))
    assert [one.name for one in plans] == ["autoencoder", "text_encoder", "initial", ""]
    assert not any(one.problems for one in plans)
    assert all(one.parameters >= one.trained > 0 and one.memory.total >= 20 * one.trained for one in plans)
    images, video = plans[2:]
    assert images.data.counts == {(4, 1, 4, 4): 8}
    assert video.data.counts == {(4, 2, 4, 4): 8}
    assert (images.data.epoch, video.data.epoch) == (4, 4)
    assert images.flops < video.flops


def test_memory_is_that_of_weights_gradients_average_and_moments(run):
    found = planned(run)
    assert found.problems == ()
    count, trained = found.parameters, found.trained
    assert dataclasses.astuple(found.memory)[:4] == (4 * count, 4 * trained, 4 * trained, 8 * trained)
    assert found.memory.step > 0
    assert found.data.counts == {(4, 2, 4, 4): 4}
    assert found.data.epoch == 2


def test_operations_are_those_of_all_samples_of_a_process(run):
    large = override(run, ["batch_size=1024"])
    whole, half = planned(large), planned(large, processes=2)
    split = planned(override(large, ["micro_batch=512"]))
    assert whole.flops == pytest.approx(2 * half.flops, rel=0.02)  # what belongs to no sample counts twice
    assert whole.flops == pytest.approx(split.flops, rel=0.02)
    assert whole.least == pytest.approx(split.least)
    assert planned(override(large, ["micro_batch=1"])).memory.step < whole.memory.step / 8
    assert whole.flops == pytest.approx(whole.least, rel=0.1)  # one draw of the known tokens, and their mean


def test_a_sample_costs_the_mean_of_all_shapes_and_the_memory_of_the_largest(run, tmp_path):
    digest = weights_digest(small_autoencoder())
    wide = shards(tmp_path / "wide", digest, ((8, 2, 8, 8),))
    both = shards(tmp_path / "both", digest, ((8, 2, 4, 4), (8, 2, 8, 8)))
    size = run.model.model_copy(update={"latent_height": 4, "latent_width": 4})
    small, large, mixed = (
        planned(run.model_copy(update={"data": data, "model": size})) for data in (run.data, wide, both)
    )
    assert mixed.least == pytest.approx((small.least + large.least) / 2)
    assert mixed.memory == large.memory
    assert small.memory.step < large.memory.step


def test_sharing_everything_takes_a_part_of_it(run):
    config = override(run, ["batch_size=8", "sharding=full"])
    alone, shared = planned(config), planned(config, processes=4)
    assert shared.memory.weights == alone.memory.weights // 4
    assert shared.memory.moments == alone.memory.moments // 4
    assert planned(override(config, ["sharding=none"]), 4).memory.weights == alone.memory.weights


def test_lora_trains_little(run):
    found = planned(override(run, ["lora.rank=2"]))
    assert found.trained < found.parameters / 4
    assert found.memory.moments == 8 * found.trained


def test_a_recipe_whose_data_are_not_here_is_planned_by_what_it_says(parts):
    config = latent_run(**parts)
    assert planned(config).memory is None
    size = config.model.model_copy(update={"latent_frames": 2, "latent_height": 4, "latent_width": 4})
    found = planned(config.model_copy(update={"model": size}))
    assert found.data is None
    assert found.memory.total > 0
    assert "unused/manifest.json: missing" in str(found.problems[0])


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    config = latent_run(
        batch_size=3,
        autoencoder=str(tmp_path / "a"),
        text_encoder="some/text",
        initial=str(tmp_path / "i"),
        data=LatentData(folder=str(tmp_path / "d")),
    )
    said = [str(problem) for problem in planned(config, processes=2).problems]
    named = ("batch_size: 3", "autoencoder: ", "text_encoder: some/text", f"{tmp_path / 'd'}", "initial: ")
    assert len(said) == len(named)
    assert all(name in line for name, line in zip(named, said, strict=True))
    assert all("\n" not in line for line in said)


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        (['freeze=["tempral.*"]'], UsageError, "freeze: 'tempral.\\*' matches no module"),
        (['lora.targets=["x"]'], UsageError, "lora.targets: 'x' matches no linear layer"),
        (["model.heads=3"], UsageError, "NovaConfig.width"),
        (["micro_batch=4"], UsageError, "batch_size"),
        (["observe.held_out=3"], UsageError, "observe.held_out"),
        (["model.classes=3"], DataError, "label None, expected 0 to 2"),
        (["model.patch=4"], DataError, "the model takes multiples of 8"),
    ],
)
def test_settings_that_do_not_go_together_are_named(run, settings, kind, said):
    found = problems(override(run, settings))
    assert list(found) == [kind]
    assert re.search(said, found[kind])


def test_data_of_another_autoencoder_or_text_encoder_are_named(run, tmp_path):
    other = shards(tmp_path / "other", "0" * 64)
    assert "whose weights are not those of the run's" in problems(run.model_copy(update={"data": other}))[DataError]
    digest = weights_digest(small_autoencoder())
    wide = shards(tmp_path / "wide", digest, text_dim=TEXT_DIM + 1)
    assert "text features of 17 numbers" in problems(run.model_copy(update={"data": wide}))[DataError]


def test_a_model_to_start_from_is_compared_by_its_shapes(run, tmp_path):
    new_transformer(run, (4, 2, 4, 4), TEXT_DIM, None).save_pretrained(tmp_path / "model")
    config = override(run, [f"initial={tmp_path / 'model'}"])
    assert problems(config) == {}
    found = problems(override(config, ["model.width=64"]))
    assert "initial: denoiser.feature.fc1.weight is [32, 32], the run's is [32, 64]" in found[UsageError]
    (tmp_path / "model" / "config.json").write_text("{}")
    assert "not a NOVA transformer" in problems(config)[CheckpointError]
