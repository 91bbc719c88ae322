import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nova.masking import draw_mask_ratio, lowest, set_sizes


@given(st.integers(1, 2000), st.integers(1, 300))
@settings(max_examples=200)
def test_sets_are_never_empty_and_cover_every_token_once(tokens: int, steps: int) -> None:
    sizes = set_sizes(tokens, steps)
    assert sum(sizes) == tokens
    assert min(sizes) > 0
    assert len(sizes) <= steps


def test_set_sizes_follow_the_cosine() -> None:
    assert set_sizes(16, 4) == [1, 4, 5, 6]
    assert set_sizes(24, 1) == [24]


def test_mask_ratio_is_a_normal_cut_to_its_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    ratios = torch.tensor([draw_mask_ratio(generator) for _ in range(3000)])
    assert ratios.min() >= 0.7
    assert ratios.max() <= 1
    # The mean of a normal of mean 1 and std 0.25 cut to [0.7, 1]: 1 - 0.25 (phi(0) - phi(1.2)) / (Phi(0) - Phi(-1.2)).
    assert ratios.mean() == pytest.approx(0.867, abs=0.005)


def test_lowest_marks_exactly_that_many() -> None:
    scores = torch.rand(5, 30, generator=torch.Generator().manual_seed(0))
    marks = lowest(scores, 7)
    assert (marks.sum(-1) == 7).all()
    for row, marked in zip(scores, marks, strict=True):
        assert row[marked].max() < row[~marked].min()
