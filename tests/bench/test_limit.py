"""The least work of a generation: what a run computes is that, plus a remainder that can be named to the operation."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nova.bench import limit
from nova.bench.limit import Work, least_work
from nova.layers.positions import SCALAR_FREQUENCIES
from nova.masking import set_sizes
from nova.models.config import NovaConfig
from nova.models.flops import generation_flops
from tests import tiny

STEPS, DIFFUSION_STEPS = 5, 3


@pytest.mark.parametrize("changes", [{"scale_shift": True, "scale_shift_rank": 4}, {"latent_frames": 1}])
@pytest.mark.parametrize("guided", [True, False])
def test_a_run_computes_the_floor_and_a_known_remainder(changes: dict[str, object], guided: bool) -> None:
    changes = {"latent_height": 8, "latent_width": 8, **changes}
    pipe = tiny.pipeline(**changes)
    shape = pipe.transformer.shape
    assert shape.text_dim is not None
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the CPU's own is not counted
        pipe(
            prompt_embeds=[torch.randn(3, shape.text_dim)],
            num_inference_steps=STEPS,
            num_diffusion_steps=DIFFUSION_STEPS,
            guidance_scale=5.0 if guided else 1.0,
            output_type="latent",
        )
    floor = generation_flops(shape, steps=STEPS, diffusion_steps=DIFFUSION_STEPS, guided=guided)
    assert counter.get_total_flops() == floor.total + remainder(shape, 2 if guided else 1)


def remainder(shape: NovaConfig, branches: int) -> float:
    """Operations that a run does beyond the floor, less those that it shares between branches and the floor does not.

    More: first layers project what is the same in every set, known tokens are embedded in every set, the last layer
    projects the queries of all rows, and diffusion times are embedded once a call. Less: embedded tokens and frames
    and the times of frames serve all branches.
    """
    rows, columns = shape.grid
    count, context, width = rows * columns, rows * columns // 4, shape.width
    sizes = set_sizes(count, STEPS)
    known = sum(sum(sizes[:index]) for index in range(len(sizes)))
    projected = branches * (len(sizes) - 1) * 6 * width**2 * (context + count)
    queries = branches * 2 * width**2 * (len(sizes) * (context + count) - count)
    embedded = 2 * (known - branches * count) * shape.token_numbers * width
    noisy = 2 * (1 - branches) * count * DIFFUSION_STEPS * shape.token_numbers * shape.denoiser_width
    more = shape.latent_frames * (projected + queries + embedded + noisy)
    times = 2 * DIFFUSION_STEPS * (2 * SCALAR_FREQUENCIES * shape.denoiser_width + shape.denoiser_width**2)
    return more + times + shared(shape, branches, context)


def shared(shape: NovaConfig, branches: int, context: int) -> float:
    """Of the temporal part: frames and their times are embedded once for all branches; a single image has a time."""
    frames = 2 * (shape.latent_frames - 1) * context * 4 * shape.token_numbers * shape.width
    embedding = 2 * (2 * SCALAR_FREQUENCIES * shape.width + shape.width**2)
    counted = branches * shape.latent_frames if shape.is_video else 0
    return (1 - branches) * frames + (shape.latent_frames - counted) * embedding


def test_bytes_are_those_of_every_pass_unless_they_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(torch.float32)
    sizes = [
        4 * sum(weight.numel() for weight in part.parameters())
        for part in (model.temporal, model.spatial, model.denoiser)
    ]
    sets = len(set_sizes(24, 4))

    def read(kept: int) -> float:
        monkeypatch.setattr(limit, "KEPT", kept)
        work = least_work(model, frames=3, size=(8, 12), steps=4, diffusion_steps=5, batch=2)
        assert work.flops == 2 * generation_flops(model.shape, steps=4, diffusion_steps=5).total
        return work.bytes

    temporal, spatial, denoiser = sizes
    assert read(kept=max(sizes)) == sum(sizes)
    assert read(kept=0) == 3 * (temporal + sets * (spatial + 5 * denoiser))


def test_the_limit_is_the_longer_of_the_two() -> None:
    assert Work(flops=10.0, bytes=4.0).limit(speed=5.0, bandwidth=4.0) == 2.0
    assert Work(flops=10.0, bytes=4.0).limit(speed=5.0, bandwidth=1.0) == 4.0
