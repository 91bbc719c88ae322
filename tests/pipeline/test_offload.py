"""With model offload the parts come and go in their order, also while frames are streamed.

There is no GPU to go to here: the hooks are accelerate's own, told to bring the parts to the CPU.
"""

import pytest
import torch
from accelerate import cpu_offload_with_hook
from accelerate.hooks import CpuOffload
from diffusers import DiffusionPipeline

from nova.pipeline import NovaPipeline
from tests import tiny

FAST = {"num_inference_steps": 2, "num_diffusion_steps": 2, "generator": 0}
TEXT, TRANSFORMER, AUTOENCODER = "PhiModel", "NovaTransformer", "VideoAutoencoder"


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> NovaPipeline:
    """A pipeline with the hooks that diffusers would give it, in `model_cpu_offload_seq`'s order."""

    def enable(pipe: NovaPipeline) -> None:
        previous = None
        for name in pipe.model_cpu_offload_seq.split("->"):
            _, previous = cpu_offload_with_hook(getattr(pipe, name), "cpu", prev_module_hook=previous)

    monkeypatch.setattr(DiffusionPipeline, "enable_model_cpu_offload", enable)
    pipe = tiny.pipeline()
    pipe.enable_model_cpu_offload()
    return pipe


@pytest.fixture
def moves(pipe: NovaPipeline, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Which part is brought, and which is sent away before it if it is there; repetitions left out."""
    seen: list[tuple[str, str | None]] = []
    bring = CpuOffload.pre_forward

    def brought(hook: CpuOffload, module: torch.nn.Module, *args: object, **kwargs: object) -> object:
        before = hook.prev_module_hook
        move = (type(module).__name__, before and type(before.model).__name__)
        if seen[-1:] != [move]:
            seen.append(move)
        return bring(hook, module, *args, **kwargs)

    monkeypatch.setattr(CpuOffload, "pre_forward", brought)
    return seen


FIRST, THEN, LAST = (TEXT, None), (TRANSFORMER, TEXT), (AUTOENCODER, TRANSFORMER)


def test_each_part_leaves_before_the_next_comes(pipe: NovaPipeline, moves: list[object]) -> None:
    pipe("a red kite", **FAST)
    assert moves == [FIRST, THEN, LAST]


def test_the_transformer_comes_back_after_every_streamed_frame(pipe: NovaPipeline, moves: list[object]) -> None:
    assert len(list(pipe.stream("a red kite", **FAST))) == 3
    assert moves == [FIRST, THEN, LAST, THEN, LAST, THEN, LAST, THEN]


def test_the_result_is_the_same(pipe: NovaPipeline) -> None:
    plain = tiny.pipeline()
    asked = {**FAST, "output_type": "pt"}
    assert pipe.vae.use_slicing
    assert not plain.vae.use_slicing
    assert (pipe("a red kite", **asked).frames - plain("a red kite", **asked).frames).abs().max() < 1e-5
    asked["output_type"] = "latent"
    assert torch.equal(pipe("a red kite", **asked).frames, plain("a red kite", **asked).frames)
