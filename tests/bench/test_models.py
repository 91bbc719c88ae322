"""Random models: the named ones have the published sizes, and their weights are the same every time and not zero."""

from __future__ import annotations

import pytest
import torch

from nova.bench.models import NAMES, random_model
from nova.errors import UsageError


@pytest.mark.parametrize(
    ("name", "latents", "frames"),
    [("0.6B-t2v-480", (60, 96), 9), ("0.6B-t2i-1024", (128, 128), 1), ("0.3B-t2i-256", (32, 32), 1)],
)
def test_names_mean_published_sizes(name: str, latents: tuple[int, int], frames: int) -> None:
    model = random_model(name)
    assert (model.shape.latent_height, model.shape.latent_width, model.shape.latent_frames) == (*latents, frames)
    parameters = sum(weight.numel() for weight in model.transformer("meta").parameters())
    assert parameters == pytest.approx(float(name.split("B-")[0]) * 1e9, rel=0.25)


def test_the_small_model_has_16_million_parameters() -> None:
    model = random_model("small").transformer("meta")
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(16e6, rel=0.05)


def test_every_name_is_a_model_and_no_other_is() -> None:
    for name in NAMES:
        random_model(name)
    for wrong in ("0.6B-t2v-1024", "0.6B-t2i-481", "0.6B", "big-t2i-512"):
        with pytest.raises(UsageError, match="model"):
            random_model(wrong)


def test_weights_are_the_same_every_time_and_none_is_zero_throughout() -> None:
    state = torch.get_rng_state()
    one, other = (random_model("tiny").transformer() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])
        assert weight.any(), name


def test_a_pipeline_is_in_one_precision() -> None:
    pipe = random_model("tiny-image").pipeline(dtype=torch.bfloat16)
    assert {weight.dtype for part in (pipe.transformer, pipe.vae) for weight in part.parameters()} == {torch.bfloat16}
