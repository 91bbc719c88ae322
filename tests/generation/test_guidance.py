import pytest
import torch

from nova.errors import UsageError
from nova.generation.guidance import Guidance


def predictions(branches: int) -> torch.Tensor:
    return torch.randn(branches, 2, 5, 16, generator=torch.Generator().manual_seed(0))


def test_two_branches_extrapolate_from_null_to_text() -> None:
    text, null = predictions(2)
    assert torch.allclose(Guidance(3.0).combine(torch.stack([text, null]), 3.0), null + 3 * (text - null))


def test_scale_one_is_the_text_branch_alone() -> None:
    text, null = predictions(2)
    assert torch.allclose(Guidance(2.0).combine(torch.stack([text, null]), 1.0), text, atol=1e-6)
    assert Guidance(1.0).branches == 1


def test_image_guidance_adds_a_term_for_earlier_frames() -> None:
    text, null, frames = predictions(3)
    guidance = Guidance(3.0, image_scale=2.0)
    expected = null + 3 * (text - frames) + 2 * (frames - null)
    assert torch.allclose(guidance.combine(torch.stack([text, null, frames]), 3.0), expected, atol=1e-5)
    assert guidance.blind == (False, True, False)


def test_renorm_shrinks_to_the_text_norm_but_not_below_its_bound() -> None:
    text, null = predictions(2)
    both = torch.stack([text, null])
    plain = Guidance(8.0).combine(both, 8.0)
    free = Guidance(8.0, renorm=0.0).combine(both, 8.0)
    assert torch.allclose(free.norm(dim=(1, 2)), text.norm(dim=(1, 2)), rtol=1e-5)
    bound = Guidance(8.0, renorm=0.9).combine(both, 8.0)
    assert torch.allclose(bound, plain * 0.9, rtol=1e-5)


def test_scale_rises_from_its_minimum_to_its_value() -> None:
    guidance = Guidance(7.0, min_scale=1.0)
    assert guidance.scale_at(0.25) == pytest.approx(2.5)
    assert guidance.scale_at(1.0) == 7.0
    assert Guidance(7.0).scale_at(0.1) == 7.0


def test_a_part_of_the_sets_is_guided() -> None:
    assert all(Guidance().covers(number, 7) for number in range(1, 8))
    assert [Guidance(start=0.5).covers(number, 4) for number in range(1, 5)] == [False, False, True, True]
    assert [Guidance(end=0.5).covers(number, 4) for number in range(1, 5)] == [True, True, False, False]
    assert [Guidance(start=0.3, end=0.6).covers(number, 4) for number in range(1, 5)] == [False] * 4


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"scale": float("nan")}, "scale"),
        ({"renorm": 1.5}, "guidance_renorm"),
        ({"truncation": -1.0}, "guidance_trunc"),
        ({"start": 0.5, "end": 0.5}, "guidance_start"),
        ({"end": 1.5}, "guidance_end"),
        ({"scale": 1.0, "image_scale": 2.0}, "image_guidance_scale"),
    ],
)
def test_impossible_values_are_named(fields: dict[str, float], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        Guidance(**fields)
