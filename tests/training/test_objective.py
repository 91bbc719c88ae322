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
from nova.training.objective import Draws, draw, losses
from tests import tiny


def test_losses_and_gradients_agree_with_the_record(record: Path) -> None:
    model = load_transformer(record / "transformer", torch.float32)
    step = load_file(record / "training_step.safetensors")
    expected = json.loads((record / "training_step.json").read_text())
    latents = step["latents"]
    batch, _, frames = latents.shape[:3]
    count = step["mask"].shape[1]
    draws = Draws(
        known=step["mask"].reshape(batch, frames, count) == 0,
        indices=step["timesteps"].reshape(4, batch, frames, count),
        noise=step["noise"].reshape(4, batch, frames, count, -1),
        dropped=torch.zeros(batch, dtype=torch.bool),
    )
    rows = model.text.rows([step[f"prompt_embeds.{index}"] for index in range(batch)])
    process = Scheduler.from_pretrained(record / "scheduler").training
    found = losses(model, process, latents, rows, draws, step.get("motion_flow"))
    if found.later is None:
        assert found.first.item() == pytest.approx(expected["losses"]["loss"], rel=1e-5)
    else:
        assert found.first.item() == pytest.approx(expected["losses"]["loss_t2i"], rel=1e-5)
        assert found.later.item() == pytest.approx(expected["losses"]["loss_i2i"], rel=1e-5)

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
    draws = draw(model, process, (2, 3, 8, 12), torch.Generator().manual_seed(1))
    again = draw(model, process, (2, 3, 8, 12), torch.Generator().manual_seed(1))
    arguments = (latents, tiny.condition(model))
    first = losses(model, process, *arguments, draws, torch.ones(2)).total
    assert torch.equal(first, losses(model, process, *arguments, again, torch.ones(2)).total)
    first.backward()
    dead = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.abs().any()]
    assert dead == []


def test_known_tokens_are_the_same_number_in_every_frame_but_not_the_same_tokens() -> None:
    model, most = tiny.model(), 0
    for seed in range(8):
        draws = draw(model, FlowProcess(), (4, 3, 8, 12), torch.Generator().manual_seed(seed))
        counts = draws.known.sum(-1)
        assert counts.unique().numel() == 1
        if most < counts[0, 0]:
            most = int(counts[0, 0])
            assert len({tuple(row.tolist()) for row in draws.known.flatten(0, 1)}) > 1
    assert 0 < most <= round(0.3 * 24)


def test_dropped_captions_train_the_null_condition() -> None:
    model = tiny.model(torch.float32)
    process, latents = FlowProcess(), torch.randn(2, 4, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    draws = draw(model, process, (2, 1, 8, 12), torch.Generator().manual_seed(1), caption_dropout=1.0)
    assert draws.dropped.all()
    one, other = (
        losses(model, process, latents, rows, draws, torch.ones(2)).total
        for rows in (tiny.condition(model), tiny.condition(model).flip(0) * 2)
    )
    assert torch.equal(one, other)


def test_the_two_parts_are_equal_when_all_frames_are_alike() -> None:
    model = tiny.model()
    process, frame = FlowProcess(), torch.randn(2, 4, 1, 8, 12, dtype=torch.float64)
    draws = draw(model, process, (2, 3, 8, 12), torch.Generator().manual_seed(1))
    alike = Draws(
        draws.known,
        draws.indices[:, :, :1].expand_as(draws.indices),
        draws.noise[:, :, :1].expand_as(draws.noise),
        draws.dropped,
    )
    with torch.no_grad():
        for parameter in model.denoiser.head.parameters():
            parameter.zero_()  # a network that ignores its inputs makes all frames' errors alike
        every = losses(model, process, frame.expand(-1, -1, 3, -1, -1), tiny.condition(model), alike, torch.ones(2))
    assert every.first.item() == pytest.approx(every.later.item(), rel=0.2)
    assert every.total.item() == pytest.approx((every.first + every.later).item())
