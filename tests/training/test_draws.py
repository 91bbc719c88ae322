"""Draws are a sample's own, and say of every token whether it is known, once."""

import pytest
import torch

from nova.diffusion.flow import FlowProcess
from nova.training.draws import DrawRules, draw, places
from tests import tiny


def test_a_sample_draws_the_same_in_any_batch():
    process, rules = FlowProcess(), DrawRules(context_noise=0.3)
    both = tiny.draws(process, ratios=(0.8, 0.6), seeds=(5, 6), rules=rules)
    alone = tiny.draws(process, ratios=(0.6,), seeds=(6,), rules=rules)
    first = 3 * round(0.8 * 24)
    assert torch.equal(both.noise[:, first:], alone.noise)
    assert torch.equal(both.indices[:, first:], alone.indices)
    assert torch.equal(both.unknown[first:] - 3 * 24, alone.unknown)
    assert torch.equal(both.context.noise[1:], alone.context.noise)


@pytest.mark.parametrize("ratio", [1.0, 0.7, 0.0])
def test_known_tokens_are_as_many_as_the_ratio_says_in_every_frame_but_not_the_same(ratio):
    draws = tiny.draws(FlowProcess(), ratios=(ratio, ratio))
    count = min(round((1 - ratio) * 24), 23)
    assert draws.known.shape == (6, count)
    assert draws.real is None
    if count > 0:
        assert len({tuple(row.tolist()) for row in draws.known}) > 1


def test_every_token_is_known_or_predicted():
    known = torch.rand(2, 3, 24, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.2, 0.7])[:, None, None]
    found, real, unknown = places(known)
    marks = torch.zeros(6 * 24, dtype=torch.bool)
    marks[unknown] = True
    for row, (places_here, real_here) in enumerate(zip(found, real, strict=True)):
        assert (places_here[~real_here] == 24).all()
        taken = row * 24 + places_here[real_here]
        assert not marks[taken].any()
        marks[taken] = True
    assert marks.all()
    assert torch.equal(known.flatten(), ~torch.zeros_like(marks).index_fill(0, unknown, True))


def test_captions_are_dropped_as_often_as_asked():
    generators = [torch.Generator().manual_seed(seed) for seed in range(400)]
    draws = draw(FlowProcess(), DrawRules(repeats=1, caption_dropout=0.25), (1, 1, 2, 2), 2, [1.0] * 400, generators)
    assert 70 < draws.dropped.sum() < 130
