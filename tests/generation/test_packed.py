"""A packed model generates what it would have generated."""

from __future__ import annotations

import copy

import pytest
import torch

from nova.diffusion.flow import FlowProcess
from nova.generation.guidance import Guidance
from nova.generation.options import GenerationOptions
from nova.generation.packed import pack_model
from nova.generation.video import generate_video
from nova.layers.packed import PackedLinear, packs
from nova.models.nova import NovaTransformer
from tests import tiny

half = pytest.mark.skipif(
    not packs(torch.device("cpu"), torch.bfloat16), reason="this CPU has no instructions for bfloat16"
)
GUIDED = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(3.0))


@torch.no_grad()
def latents(model: NovaTransformer, steps: int = 4, frames: int = 3) -> torch.Tensor:
    text = tiny.prompt(model).to(model.dtype)
    prompt, options = GUIDED.guidance.expand(text, text.flip(0)), GenerationOptions(steps, 3, GUIDED.guidance)
    made = generate_video(model, FlowProcess(), prompt, (8, 12), frames, options, torch.Generator().manual_seed(0))
    return torch.stack([step.latents for step in made if step.finished], dim=2)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-3)], ids=str)
def test_it_generates_the_same(variant: str, dtype: torch.dtype, bound: float) -> None:
    plain, packed = (tiny.model(dtype, **tiny.VARIANTS[variant]) for _ in range(2))
    pack_model(packed)
    expected = latents(plain)
    assert (latents(packed) - expected).norm() <= bound * expected.norm()
    assert packed.denoiser.predict is not plain.denoiser.predict


@half
@pytest.mark.parametrize("width", [24, 520])
def test_in_half_precision_it_is_as_near_to_the_exact_one(width: int) -> None:
    """One set of one frame: later ones would begin from other tokens."""
    exact = tiny.model(torch.float64, denoiser_width=width)
    with torch.no_grad():
        for weight in exact.parameters():
            weight.mul_(0.3).copy_(weight.bfloat16())
    plain = copy.deepcopy(exact).to(torch.bfloat16)
    packed = copy.deepcopy(plain)
    pack_model(packed)
    assert any(isinstance(module, PackedLinear) for module in packed.modules())
    expected = latents(exact, 1, 1)
    found, usual = ((latents(model, 1, 1) - expected).norm() / expected.norm() for model in (packed, plain))
    assert 0 < found <= 1.5 * usual


@half
def test_the_few_rows_of_a_small_denoising_mlp_are_computed_in_float32() -> None:
    small, large = tiny.model(torch.bfloat16), tiny.model(torch.bfloat16, denoiser_width=520)
    for model in (small, large):
        pack_model(model)
    assert {small.denoiser.embed.weight.dtype, small.denoiser.blocks[0].mlp.fc1.weight.dtype} == {torch.float32}
    assert isinstance(large.denoiser.blocks[0].mlp.fc1, PackedLinear)
    assert isinstance(small.denoiser.modulation, PackedLinear)
    assert small.denoiser.modulation.result == torch.float32
