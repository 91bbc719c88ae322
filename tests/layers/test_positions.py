import math

import pytest
import torch

from nova.layers.positions import (
    grid_positions,
    plane_embedding,
    rotary_angles,
    rotate,
    scalar_embedding,
    timestep_embedding,
)


def test_scalar_embedding_is_sine_then_cosine_at_frequencies_falling_to_a_ten_thousandth() -> None:
    row = scalar_embedding(torch.tensor([3.0]))[0]
    assert row[0] == pytest.approx(math.sin(3))
    assert row[128] == pytest.approx(math.cos(3))
    assert row[127] == pytest.approx(math.sin(3 * 10000 ** (-127 / 128)), rel=1e-5)


def test_timestep_embedding_is_the_same_with_cosine_first() -> None:
    times = torch.tensor([0.0, 1.5, 40.0])
    swapped = scalar_embedding(times).roll(128, dims=-1)
    assert torch.allclose(timestep_embedding(times), swapped, atol=1e-4)


def test_plane_embedding_puts_column_before_row_and_stretches_over_the_trained_grid() -> None:
    plane = plane_embedding(2, 3, 16, trained=(2, 3))
    assert plane[4, 0] == pytest.approx(math.sin(1))  # token 4 is row 1, column 1
    assert plane[2, 0] == pytest.approx(math.sin(2))
    assert plane[2, 8] == pytest.approx(math.sin(0))
    doubled = plane_embedding(4, 6, 16, trained=(2, 3))
    assert torch.allclose(doubled[2 * 6 + 2], plane[1 * 3 + 1])


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance_only() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 64)

    def product(at_q: tuple[int, int, int], at_k: tuple[int, int, int]) -> torch.Tensor:
        turned = [rotate(x, rotary_angles(torch.tensor([[position]]), 64)) for x, position in ((q, at_q), (k, at_k))]
        assert turned[0].norm() == pytest.approx(q.norm().item(), rel=1e-5)
        return (turned[0] * turned[1]).sum()

    assert torch.allclose(product((1, 2, 3), (2, 4, 6)), product((4, 0, 1), (5, 2, 4)), atol=1e-4)
    assert not torch.allclose(product((1, 2, 3), (2, 4, 6)), product((1, 2, 3), (2, 4, 5)), atol=1e-4)


def test_rotary_head_gives_an_eighth_to_time() -> None:
    cos, _ = rotary_angles(torch.tensor([[[1, 0, 0]]]), 64)
    assert cos.shape[-1] == 32
    assert (cos[0, 0, :4] != 1).all()
    assert (cos[0, 0, 4:] == 1).all()


def test_grid_positions_run_row_by_row() -> None:
    assert grid_positions(7, 2, 3).tolist()[4] == [7, 1, 1]
