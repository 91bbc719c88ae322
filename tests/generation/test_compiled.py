"""Fused kernels make what plain ones make, of all sizes, and follow the weights.

The backend `eager` traces, and fuses nothing.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from nova.diffusion.flow import FlowProcess
from nova.generation.compiled import compile_model
from nova.generation.guidance import Guidance
from nova.generation.options import GenerationOptions
from nova.generation.video import generate_video
from nova.models.nova import NovaTransformer
from tests import tiny

pytestmark = pytest.mark.usefixtures("compiling")
GUIDED = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(3.0))


def latents(
    model: NovaTransformer, frames: int = 3, size: tuple[int, int] = (8, 12), options: GenerationOptions = GUIDED
) -> torch.Tensor:
    with torch.no_grad():
        text = tiny.prompt(model)
        prompt = options.guidance.expand(text, text.flip(0))
    steps = generate_video(model, FlowProcess(), prompt, size, frames, options, torch.Generator().manual_seed(0))
    return torch.stack([step.latents for step in steps if step.finished], dim=2)


def same(model: NovaTransformer, plain: NovaTransformer, **changes: object) -> None:
    torch.testing.assert_close(latents(model, **changes), latents(plain, **changes), rtol=0, atol=1e-10)


def test_everything_is_traced_once_and_follows_the_weights() -> None:
    counters.clear()
    model, plain = tiny.model(torch.float64), tiny.model(torch.float64)
    compile_model(model, backend="eager")
    same(model, plain)
    traced = counters["stats"]["unique_graphs"]
    assert traced >= 3  # temporal, spatial and the denoising MLP
    with torch.no_grad():
        for one in (model, plain):
            for weight in one.parameters():
                weight.mul_(1.1)
    same(model, plain, size=(12, 16), frames=2)
    assert counters["stats"]["unique_graphs"] <= traced + 3  # of one token and of several, not of each size
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_fused_kernels_give_the_same(variant: str) -> None:
    model, plain = (tiny.model(torch.float64, **tiny.VARIANTS[variant]) for _ in range(2))
    compile_model(model)
    same(model, plain)
    same(model, plain, size=(12, 16), frames=4)
    same(model, plain, options=GenerationOptions(steps=6, diffusion_steps=2, guidance=Guidance(3.0)))
    compile_model(model)
    same(model, plain)
