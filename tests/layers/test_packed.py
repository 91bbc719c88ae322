"""A packed layer is the layer it was made from, whatever the number of rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nova.errors import UsageError
from nova.layers.packed import PackedLinear, pack, packs
from nova.layers.transformer import Projector

CPU = torch.device("cpu")
half = pytest.mark.skipif(not packs(CPU, torch.bfloat16), reason="this CPU has no instructions for bfloat16")
ROWS = (1, 31, 32, 33, 383, 384, 385, 640, 1000)


def layer(inputs: int = 48, outputs: int = 80) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs).bfloat16()


@half
@torch.no_grad()
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("activation", [None, nn.GELU(), nn.GELU("tanh"), nn.SiLU()], ids=str)
def test_it_computes_what_the_layer_computes(rows: int, activation: nn.Module | None) -> None:
    plain = layer()
    x = torch.randn(2, rows, 48, generator=torch.Generator().manual_seed(rows)).bfloat16()
    exact = nn.functional.linear(x.float(), plain.weight.float(), plain.bias.float())
    exact = exact if activation is None else activation(exact)
    made = PackedLinear(plain, activation)(x)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), exact, rtol=2**-8, atol=2**-9)  # rounded once
    assert torch.equal(PackedLinear(plain, activation)(x.mT.contiguous().mT), made)
    among_others = torch.cat([x.new_zeros(3, 48), x.flatten(0, 1), x.new_zeros(40, 48)])[3 : 3 + 2 * rows]
    assert torch.equal(PackedLinear(plain, activation)(among_others), made.flatten(0, 1))
    assert PackedLinear(plain, activation, torch.float32)(x).dtype == torch.float32


@half
@torch.no_grad()
def test_rows_do_not_meet() -> None:
    packed, x = PackedLinear(layer()), torch.ones(3, 48).bfloat16()
    for _ in range(50):  # what stands in fresh memory, and so in rows that fill up, may be anything
        torch.empty(1 << 12).fill_(torch.nan)
        assert packed(x).isfinite().all()


@half
@torch.no_grad()
def test_all_layers_within_are_packed_and_activations_joined_to_them() -> None:
    torch.manual_seed(0)
    plain = Projector(64, 96).bfloat16()
    x = torch.randn(5, 64).bfloat16()
    before = plain(x)
    pack(plain)
    assert not any(type(module) in (nn.Linear, nn.SiLU) for module in plain.modules())
    torch.testing.assert_close(plain(x), before, rtol=2**-6, atol=2**-7)


@half
def test_it_can_neither_be_saved_nor_moved() -> None:
    packed = nn.Sequential(PackedLinear(layer()))
    with pytest.raises(UsageError, match="save it before"):
        packed.state_dict()
    with pytest.raises(UsageError, match="device and dtype before"):
        packed.to(torch.float32)
    assert packed.to("cpu", torch.bfloat16)(torch.ones(1, 48).bfloat16()).shape == (1, 80)


def test_other_precisions_and_devices_are_left_alone() -> None:
    assert not any(packs(CPU, dtype) for dtype in (torch.float32, torch.float64, torch.float16))
    assert not packs(torch.device("cuda"), torch.bfloat16)
