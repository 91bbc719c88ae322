import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nova.checkpoints import published
from nova.checkpoints.folder import load_transformer
from nova.diffusion.flow import FlowProcess
from nova.diffusion.gaussian import GaussianProcess
from nova.diffusion.scheduler import Scheduler
from nova.training.draws import DrawRules, Draws, places
from nova.training.objective import losses
from tests import tiny


def test_losses_and_gradients_agree_with_the_record(record: Path) -> None:
    model = load_transformer(record / "transformer", torch.float32)
    step = load_file(record / "training_step.safetensors")
    expected = json.loads((record / "training_step.json").read_text())
    latents = step["latents"]
    batch, _, frames = latents.shape[:3]
    count = step["mask"].shape[1]
    known, real, unknown = places(step["mask"].reshape(batch, frames, count) == 0)
    draws = Draws(
        known,
        real,
        unknown,
        indices=step["timesteps"].reshape(4, -1)[:, unknown],
        noise=step["noise"].reshape(4, batch * frames * count, -1)[:, unknown],
        dropped=torch.zeros(batch, dtype=torch.bool),
    )
    rows = model.text.rows([step[f"prompt_embeds.{index}"] for index in range(batch)])
    process = Scheduler.from_pretrained(record / "scheduler").training
    found = losses(model, process, latents, rows, draws, step.get("motion_flow"))
    if found.later is None:
        assert found.first.item() / found.tokens == pytest.approx(expected["losses"]["loss"], rel=1e-5)
    else:
        assert found.first.item() / found.tokens == pytest.approx(expected["losses"]["loss_t2i"], rel=1e-5)
        assert found.later.item() / found.tokens == pytest.approx(expected["losses"]["loss_i2i"], rel=1e-5)

    found.total.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    ours = published.write_weights(
        {
            name: torch.zeros_like(parameter) if gradients[name] is None else gradients[name]
            for name, parameter in model.named_parameters()
        },
        model.shape,
    )
    recorded = {name: norm for name, norm in expected["grad_norms"].items() if norm is not None}
    assert len(recorded) > 100
    for name, norm in recorded.items():
        assert ours[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-9), name


@pytest.mark.parametrize("process", [FlowProcess(), GaussianProcess()])
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_the_loss_is_a_function_of_its_draws_and_reaches_every_parameter(
    process: FlowProcess | GaussianProcess, variant: str
) -> None:
    model = tiny.model(torch.float32, **tiny.VARIANTS[variant])
    latents = torch.randn(2, 4, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    arguments = (latents, tiny.condition(model))
    first = losses(model, process, *arguments, tiny.draws(process), torch.ones(2)).total
    assert torch.equal(first, losses(model, process, *arguments, tiny.draws(process), torch.ones(2)).total)
    first.backward()
    dead = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.abs().any()]
    assert dead == []


@pytest.mark.parametrize("variant", tiny.VARIANTS)
@pytest.mark.parametrize("ratios", [(0.8, 0.8), (0.4, 0.9)])
def test_a_batch_is_the_sum_of_its_samples(variant: str, ratios: tuple[float, float]) -> None:
    """Also where samples know unequally many tokens, and whatever the captions."""
    model, process = tiny.model(torch.float64, **tiny.VARIANTS[variant]), FlowProcess()
    latents = torch.randn(2, 4, 3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    condition, motion = tiny.condition(model), torch.tensor([1.0, 4.0], dtype=torch.float64)
    both = losses(model, process, latents, condition, tiny.draws(process, ratios=ratios), motion)
    alone = [
        losses(
            model,
            process,
            latents[i : i + 1],
            condition[i : i + 1],
            tiny.draws(process, ratios=ratios[i : i + 1], seeds=(i,)),
            motion[i : i + 1],
        )
        for i in range(2)
    ]
    assert both.tokens == sum(one.tokens for one in alone)
    assert both.first.item() == pytest.approx(sum(one.first.item() for one in alone), rel=1e-12)
    assert both.later.item() == pytest.approx(sum(one.later.item() for one in alone), rel=1e-12)


def test_dropped_captions_train_the_null_condition() -> None:
    model, process = tiny.model(torch.float32), FlowProcess()
    latents = torch.randn(2, 4, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    draws = tiny.draws(process, frames=1, rules=DrawRules(caption_dropout=1.0))
    assert draws.dropped.all()
    one, other = (
        losses(model, process, latents, rows, draws, torch.ones(2)).total
        for rows in (tiny.condition(model), tiny.condition(model).flip(0) * 2)
    )
    assert torch.equal(one, other)


def test_the_two_parts_are_equal_when_all_frames_are_alike() -> None:
    model, process = tiny.model(), FlowProcess()
    latents = torch.ones(2, 4, 3, 8, 12, dtype=torch.float64)
    draws = tiny.draws(process)
    alike = dataclasses.replace(draws, indices=torch.full_like(draws.indices, 300), noise=torch.ones_like(draws.noise))
    with torch.no_grad():
        for parameter in model.denoiser.head.parameters():
            parameter.zero_()  # a network that ignores its inputs makes all tokens' errors alike
        every = losses(model, process, latents, tiny.condition(model), alike, torch.ones(2))
    assert every.first.item() == pytest.approx(every.later.item())
    assert every.total.item() == pytest.approx(2 * every.first.item() / every.tokens)


def test_noise_on_the_context_changes_later_frames_only() -> None:
    model, process = tiny.model(scale_shift=True), FlowProcess()
    latents = torch.randn(2, 4, 3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noisy = tiny.draws(process, rules=DrawRules(context_noise=0.5))
    clean = dataclasses.replace(noisy, context=None)
    assert noisy.context.levels.max() <= 0.5
    one, other = (
        losses(model, process, latents, tiny.condition(model), draws, torch.ones(2)) for draws in (clean, noisy)
    )
    assert one.first.item() == other.first.item()
    assert one.later.item() != other.later.item()
