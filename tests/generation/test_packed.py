"""A packed model generates what it would have generated."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nova.diffusion.flow import FlowProcess
from nova.errors import UsageError
from nova.generation.guidance import Guidance
from nova.generation.options import GenerationOptions
from nova.generation.packed import pack_model
from nova.generation.video import generate_video
from nova.layers.packed import PackedLinear, packs
from nova.models.nova import NovaTransformer
from nova.training.lora import LoraSettings, add_lora
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


def test_a_model_with_an_adapter_is_refused_and_left_alone() -> None:
    model = add_lora(tiny.model(), LoraSettings(rank=2), seed=0)
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(UsageError, match=r"pack\(\): \S+ has an adapter; merge it"):
        pack_model(model)
    assert [name for name, _ in model.named_modules()] == names


def test_its_denoising_step_does_what_generation_does_and_not_what_training_does() -> None:
    """Nobody has to say no_grad to pack; what takes no gradients has fused operations that training has not."""

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    def done(model: NovaTransformer) -> list[str]:
        names.clear()
        parts = [torch.ones(1, 24, dtype=torch.float64)] * (3 * len(model.denoiser.blocks) + 2)
        with torch.no_grad(), Operations():
            model.denoiser.predict(torch.ones(1, 16, dtype=torch.float64), parts)
        return list(names)

    names: list[str] = []
    plain, packed = tiny.model(), tiny.model()
    pack_model(packed)
    assert done(packed) == done(plain)


def test_what_comes_out_may_be_changed_like_any_tensor() -> None:
    """With patches of one cell latents are a view of what was sampled."""
    model = tiny.model(patch=1)
    with torch.no_grad():
        made = generate_video(
            model, FlowProcess(), tiny.prompt(model)[None], (4, 4), 1, GenerationOptions(2, 2, Guidance(1.0))
        )
        assert not any(step.latents.is_inference() for step in made)
