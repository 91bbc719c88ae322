import pytest
import torch

from nova.layers.patches import patchify
from nova.models.conditioning import Prompts
from tests import tiny

GRID = (2, 3)


def frames(length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return patchify(torch.randn(2, length, 4, 8, 12, generator=generator, dtype=torch.float64), 4)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_one_pass_over_all_frames_equals_start_and_advance(variant: str, length: int) -> None:
    model = tiny.model(**tiny.VARIANTS[variant])
    clip, prompt = frames(length), tiny.prompt(model)
    with torch.no_grad():
        whole = model.temporal(clip, prompt, GRID)
        condition, state = model.temporal.start(Prompts.unshared(prompt[None]), length, GRID)
        steps = [condition[0]]
        for index in range(length - 1):
            condition, state = model.temporal.advance(clip[:, index], state)
            steps.append(condition[0])
    assert torch.allclose(whole, torch.stack(steps, dim=1), atol=1e-10)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_a_frame_changes_later_conditions_only(variant: str) -> None:
    model = tiny.model(**tiny.VARIANTS[variant])
    clip = frames(4)
    changed = clip.clone()
    changed[:, 1] += 1
    with torch.no_grad():
        before, after = (model.temporal(one, tiny.prompt(model), GRID) for one in (clip, changed))
    assert torch.equal(before[:, :2], after[:, :2])
    assert ((before[:, 2:] - after[:, 2:]).abs().amax(dim=(-1, -2)) > 1e-6).all()


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_advancing_leaves_the_old_state_usable(variant: str) -> None:
    model = tiny.model(**tiny.VARIANTS[variant])
    clip = frames(3)
    with torch.no_grad():
        _, state = model.temporal.start(Prompts.unshared(tiny.prompt(model)[None]), 3, GRID)
        first, _ = model.temporal.advance(clip[:, 0], state)
        model.temporal.advance(clip[:, 1], state)
        again, _ = model.temporal.advance(clip[:, 0], state)
    assert torch.equal(first, again)


def test_a_state_takes_memory_for_its_last_slot_only() -> None:
    """What came before is that of the state before it."""
    model, clip = tiny.model(), frames(3)
    with torch.no_grad():
        _, first = model.temporal.start(Prompts.unshared(tiny.prompt(model)[None]), 4, GRID)
        _, second = model.temporal.advance(clip[:, 0], first)
        _, third = model.temporal.advance(clip[:, 1], second)
    for layer, (before, now) in enumerate(zip(second.past, third.past, strict=True)):
        assert first.past[layer][0] is before[0] is now[0]
        assert before[1] is now[1]
        keys, values = now[2]
        assert keys.shape[2] == values.shape[2] == GRID[0] * GRID[1]
        assert keys.untyped_storage().nbytes() == keys.numel() * keys.element_size()


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_a_blind_branch_sees_no_frame(variant: str) -> None:
    model = tiny.model(**tiny.VARIANTS[variant])
    prompt = torch.stack([tiny.prompt(model)] * 2)
    with torch.no_grad():
        _, state = model.temporal.start(Prompts.unshared(prompt), 3, GRID, blind=(False, True))
        one, other = (model.temporal.advance(frames(3)[:, index], state)[0] for index in (0, 1))
    assert torch.equal(one[1], other[1])
    assert not torch.allclose(one[0], other[0])


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_what_equal_prompts_make_of_slot_0_is_computed_once(variant: str) -> None:
    model = tiny.model(**tiny.VARIANTS[variant])
    rows, clip, blind = tiny.prompt(model, batch=3), frames(3), (False, True, False)
    shared = Prompts(rows, ((0, 1, 0, 0), (2, 2, 2, 2), (2, 2, 2, 2)))
    clip = clip[[0, 1, 1, 0]]
    counts: list[int] = []
    spy = model.temporal.blocks[0].register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))

    def conditions(prompts: Prompts) -> list[torch.Tensor]:
        condition, state = model.temporal.start(prompts, 3, GRID, blind)
        made = [condition]
        for index in (0, 1):
            condition, state = model.temporal.advance(clip[:, index], state)
            made.append(condition)
        return made

    with torch.no_grad():
        together = conditions(shared)
        apart = conditions(Prompts.unshared(rows[torch.tensor(shared.index)]))
    spy.remove()
    assert counts == [4, 12, 12, 12, 12, 12]  # two prompts, and the third one blind and not
    for one, other in zip(together, apart, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_time_is_stretched_over_the_trained_range() -> None:
    model = tiny.model()
    with torch.no_grad():
        trained = model.temporal.time(torch.arange(3), 1.0)
        doubled = model.temporal.time(torch.arange(6), 2.0)
    assert torch.allclose(doubled[::2], trained)
