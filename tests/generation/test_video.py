import itertools

import pytest
import torch

from nova.diffusion.flow import FlowProcess
from nova.diffusion.gaussian import GaussianProcess
from nova.generation.guidance import Guidance
from nova.generation.options import GenerationOptions
from nova.generation.video import Step, generate_video
from nova.models.conditioning import Prompts
from nova.models.nova import NovaTransformer
from tests import tiny

SIZE = (8, 12)
OPTIONS = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(3.0))


def run(
    model: NovaTransformer,
    frames: int = 3,
    options: GenerationOptions = OPTIONS,
    seed: int = 0,
    prefix: torch.Tensor | None = None,
    process: object = None,
) -> list[Step]:
    with torch.no_grad():
        text = tiny.prompt(model)
        prompt = options.guidance.expand(text, text.flip(0))
    generator = torch.Generator().manual_seed(seed)
    return list(generate_video(model, process or FlowProcess(), prompt, SIZE, frames, options, generator, prefix))


def video(steps: list[Step]) -> torch.Tensor:
    return torch.stack([step.latents for step in steps if step.finished], dim=2)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_every_token_of_every_frame_is_drawn_exactly_once(variant: str) -> None:
    steps = run(tiny.model(torch.float32, **tiny.VARIANTS[variant]))
    for _, group in itertools.groupby(steps, key=lambda step: step.frame):
        previous = torch.zeros(2, 4, *SIZE)
        drawn = torch.zeros(2, 4, *SIZE)
        for step in group:
            fresh = step.latents != previous
            assert (previous[fresh] == 0).all()
            drawn += fresh
            previous = step.latents
        assert (drawn == 1).all()


def test_generation_leaves_no_trace_and_interleaved_runs_do_not_disturb_each_other() -> None:
    model = tiny.model(torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    alone = [video(run(model, seed=seed, frames=frames)) for seed, frames in ((0, 3), (1, 2))]

    def started(seed: int, frames: int) -> object:
        text = tiny.prompt(model).detach()
        prompt = OPTIONS.guidance.expand(text, text.flip(0))
        return generate_video(model, FlowProcess(), prompt, SIZE, frames, OPTIONS, torch.Generator().manual_seed(seed))

    cancelled = started(5, 3)
    next(cancelled)
    first, second = [], []
    for one, other in itertools.zip_longest(started(0, 3), started(1, 2)):
        first += [one] if one else []
        second += [other] if other else []
    assert torch.equal(video(first), alone[0])
    assert torch.equal(video(second), alone[1])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_guidance_one_equals_no_guidance() -> None:
    model = tiny.model(torch.float32)
    off = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(1.0))
    rising = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(1.0 + 1e-9))
    assert torch.allclose(video(run(model, options=off)), video(run(model, options=rising)), atol=1e-4)


def test_full_truncation_equals_no_guidance() -> None:
    model = tiny.model(torch.float32)
    off = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(1.0))
    truncated = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(4.0, truncation=1000.0))
    process = GaussianProcess()  # its first time is below 1000, so every step is truncated
    first, second = (video(run(model, options=one, process=process)) for one in (off, truncated))
    assert torch.allclose(first, second, atol=1e-4)


def test_sets_outside_the_guided_part_run_the_prompt_alone() -> None:
    model = tiny.model(torch.float32)
    batches: list[int] = []
    model.spatial.register_forward_pre_hook(lambda _, given: batches.append(len(given[2])))
    guided = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(3.0, start=0.5))
    late = run(model, frames=1, options=guided)
    assert batches == [1, 1, 2, 2]
    off = run(model, frames=1, options=GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(1.0)))
    assert torch.allclose(late[1].latents, off[1].latents, atol=1e-5)
    assert not torch.allclose(late[-1].latents, off[-1].latents, atol=1e-5)


@pytest.mark.parametrize("window", [None, 2])
def test_shared_prompts_make_the_video_that_a_tensor_of_them_makes(window: int | None) -> None:
    model = tiny.model()
    guidance = Guidance(3.0, image_scale=1.5)
    options = GenerationOptions(steps=4, diffusion_steps=3, guidance=guidance, window=window)
    rows = tiny.prompt(model).detach()
    shared = Prompts(rows, ((0, 0), (1, 1), (1, 1)))
    plain = guidance.expand(rows[[0, 0]], rows[[1, 1]])
    first, second = (
        video(list(generate_video(model, FlowProcess(), prompt, SIZE, 3, options, torch.Generator().manual_seed(0))))
        for prompt in (shared, plain)
    )
    assert torch.allclose(first, second, rtol=0, atol=1e-5)  # finished frames are float32


def test_given_frames_come_back_untouched_and_change_what_follows() -> None:
    model = tiny.model(torch.float32)
    prefix = torch.randn(2, 4, 2, *SIZE, generator=torch.Generator().manual_seed(9))
    continued = video(run(model, frames=4, prefix=prefix))
    assert torch.equal(continued[:, :, :2], prefix)
    other = video(run(model, frames=4, prefix=prefix + 1))
    assert not torch.allclose(continued[:, :, 2:], other[:, :, 2:])


def test_continuing_a_generated_prefix_sees_the_same_past() -> None:
    model = tiny.model(torch.float64)
    whole = run(model, frames=3)
    prefix = video(whole)[:, :, :2]
    options = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(3.0))
    # The same prefix at the same place leads to the same condition, whether it was given or made.
    again = run(model, frames=3, prefix=prefix, options=options, seed=3)
    third = run(model, frames=3, prefix=prefix.clone(), options=options, seed=3)
    assert torch.equal(video(again), video(third))


@pytest.mark.parametrize("variant", tiny.VARIANTS)
@pytest.mark.parametrize("length", [4, 7, 8])
def test_longer_than_trained_in_one_pass_or_in_a_sliding_window(variant: str, length: int) -> None:
    model = tiny.model(torch.float32, **tiny.VARIANTS[variant])
    for window in (None, 2, 3):
        options = GenerationOptions(steps=2, diffusion_steps=2, guidance=Guidance(2.0), window=window)
        steps = run(model, frames=length, options=options)
        assert [step.frame for step in steps if step.finished] == list(range(length))
        assert {step.frames for step in steps} == {length}
        assert torch.isfinite(video(steps)).all()


def test_a_window_as_long_as_the_video_changes_nothing() -> None:
    model = tiny.model(torch.float32)
    windowed = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(3.0), window=3)
    assert torch.equal(video(run(model, options=windowed)), video(run(model)))


def test_a_sliding_window_forgets_what_lies_behind_it() -> None:
    model = tiny.model(torch.float32)
    options = GenerationOptions(steps=4, diffusion_steps=3, guidance=Guidance(3.0), window=2)
    prefix = torch.randn(2, 4, 3, *SIZE, generator=torch.Generator().manual_seed(9))
    changed = prefix.clone()
    changed[:, :, 0] += 1
    first, second = (video(run(model, frames=5, options=options, prefix=one)) for one in (prefix, changed))
    assert torch.equal(first[:, :, 1:], second[:, :, 1:])


def test_other_sizes_than_trained_work() -> None:
    model = tiny.model(torch.float32)
    text = tiny.prompt(model).detach()
    prompt = OPTIONS.guidance.expand(text, text)
    steps = list(generate_video(model, FlowProcess(), prompt, (16, 4), 2, OPTIONS, torch.Generator().manual_seed(0)))
    assert video(steps).shape == (2, 4, 2, 16, 4)


def test_train_then_sample_then_another_length_then_another_dtype() -> None:
    from nova.training.draws import DrawRules, draw
    from nova.training.objective import losses

    model = tiny.model(torch.float32).train()
    process, generator = FlowProcess(), torch.Generator().manual_seed(0)

    def train(frames: int) -> None:
        draws = draw(process, DrawRules(), (4, frames, *SIZE), 2, [0.8, 0.8], [generator, generator])
        latents = torch.randn(2, 4, frames, *SIZE, generator=generator)
        losses(model, process, latents, tiny.condition(model), draws, torch.ones(2)).total.backward()

    train(3)
    run(model.eval(), frames=3)
    train(2)
    run(model, frames=5)
    run(model.double(), frames=2)
    run(model.bfloat16(), frames=2)
