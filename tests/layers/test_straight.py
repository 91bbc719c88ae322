"""Straight-line code does what the method does, without calling modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nova.layers.straight import straight


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False)
        self.calls = 0
        for module in (self.first, self.norm, self.second):
            module.register_forward_pre_hook(self.count)

    def count(self, *_: object) -> None:
        self.calls += 1

    def predict(self, x: Tensor, parts: tuple[Tensor, Tensor]) -> Tensor:
        return self.second(self.norm(self.first(x)) * parts[0] + parts[1])


def test_it_computes_the_same_and_calls_only_what_is_opaque() -> None:
    network, x, parts = Network(), torch.randn(5, 3), (torch.randn(5, 4), torch.randn(4))
    expected = network.predict(x, parts)
    inline, opaque = straight(network, "predict"), straight(network, "predict", opaque=(nn.LayerNorm,))
    network.calls = 0
    assert torch.equal(inline(x, parts), expected)
    assert network.calls == 0
    assert torch.equal(opaque(x, parts), expected)
    assert network.calls == 1


def test_it_sees_weights_that_change_in_place() -> None:
    network, x, parts = Network(), torch.randn(5, 3), (torch.randn(5, 4), torch.randn(4))
    run = straight(network, "predict")
    with torch.no_grad():
        network.first.weight.mul_(2)
    assert torch.equal(run(x, parts), network.predict(x, parts))
