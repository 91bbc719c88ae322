import pytest
import torch

from tests import tiny

GRID = (4, 6)


def inputs(model: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 24, 16, generator=generator, dtype=torch.float64)
    known = torch.rand(2, 24, generator=generator).argsort(-1)[:, :9]
    condition = torch.randn(1, 2, 6, 32, generator=generator, dtype=torch.float64)
    return tokens, known, condition


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_an_unknown_token_changes_no_feature_and_a_known_one_changes_all(variant: str) -> None:
    model = tiny.model(**tiny.VARIANTS[variant])
    tokens, known, condition = inputs(model)
    places = model.spatial.places(GRID, 6)
    unknown = next(place for place in range(24) if place not in known[0].tolist())
    with torch.no_grad():
        before = model.spatial(tokens, known, condition, places)
        tokens[0, unknown] += 1
        assert torch.equal(model.spatial(tokens, known, condition, places), before)
        tokens[0, known[0, 0]] += 1
        after = model.spatial(tokens, known, condition, places)
    assert ((before - after)[0, 0].abs().amax(-1) > 1e-8).all()
    assert torch.equal(after[0, 1], before[0, 1])


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_the_order_of_known_places_does_not_matter(variant: str) -> None:
    model = tiny.model(**tiny.VARIANTS[variant])
    tokens, known, condition = inputs(model)
    places = model.spatial.places(GRID, 6)
    with torch.no_grad():
        features = model.spatial(tokens, known, condition, places)
        flipped = model.spatial(tokens, known.flip(1), condition, places)
    assert torch.allclose(features, flipped, atol=1e-10)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_branches_are_independent_copies(variant: str) -> None:
    model = tiny.model(**tiny.VARIANTS[variant])
    tokens, known, condition = inputs(model)
    places = model.spatial.places(GRID, 6)
    both = torch.cat([condition, condition + 1])
    with torch.no_grad():
        features = model.spatial(tokens, known, both, places)
        alone = model.spatial(tokens, known, both[1:], places)
    assert torch.allclose(features[1:], alone, atol=1e-10)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_places_differ_even_where_nothing_is_known(variant: str) -> None:
    model = tiny.model(**tiny.VARIANTS[variant])
    tokens, known, condition = inputs(model)
    with torch.no_grad():
        features = model.spatial(tokens, known[:, :0], condition, model.spatial.places(GRID, 6))[0, 0]
    distances = torch.cdist(features, features) + torch.eye(24)
    assert distances.min() > 1e-6
