"""A packed block is the block it was made from, in each of its uses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nova.errors import UsageError
from nova.layers.packed import PackedLinear, PlainLinear, packs
from nova.layers.packed_block import PackedBlock
from nova.layers.positions import rotary_angles
from nova.layers.transformer import Block

half = pytest.mark.skipif(
    not packs(torch.device("cpu"), torch.bfloat16), reason="this CPU has no instructions for bfloat16"
)
KINDS = [
    pytest.param(PackedLinear, torch.bfloat16, marks=half, id="packed"),
    pytest.param(PlainLinear, torch.float64, id="plain"),
]
WIDTH, HEADS, COUNT = 64, 2, 21


def pair(linear: type[PackedLinear | PlainLinear], dtype: torch.dtype) -> tuple[Block, PackedBlock]:
    torch.manual_seed(0)
    block = Block(WIDTH, HEADS).eval()
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_((torch.randn_like(weight) * 0.2).bfloat16())
    block = block.to(dtype)
    return block, PackedBlock(copy.deepcopy(block), linear)


def tokens(dtype: torch.dtype, count: int = COUNT) -> Tensor:
    return torch.randn(2, count, WIDTH, generator=torch.Generator().manual_seed(1)).bfloat16().to(dtype)


def uses(dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    generator = torch.Generator().manual_seed(2)
    head = WIDTH // HEADS
    past = torch.randn(2, 2, HEADS, 5, head, generator=generator).bfloat16().to(dtype)
    return {
        "plain": {},
        "turned": {"rotation": rotary_angles(torch.randint(0, 9, (1, COUNT, 3), generator=generator), head)},
        "past": {"past": (past[0], past[1]), "keep": True},
        "blocks": {"blocks": (10, 4, 7)},
        "real": {"real": torch.rand(2, COUNT, generator=generator) < 0.7},
        "rows": {"rows": torch.stack([torch.randperm(COUNT, generator=generator)[:6] for _ in range(2)])},
    }


def near(found: Tensor, expected: Tensor, exact: Tensor) -> bool:
    """Whether one result is as far from the exact numbers as the other, by roundings of its precision."""
    rounding = torch.finfo(expected.dtype).eps
    found, expected, size = found.double() - exact, expected.double() - exact, rounding * exact.norm()
    return bool(found.norm() <= max(1.2 * expected.norm(), size)) and bool(expected.norm() <= 20 * size)


@torch.no_grad()
@pytest.mark.parametrize(("linear", "dtype"), KINDS)
@pytest.mark.parametrize("use", uses(torch.float64))
def test_it_computes_what_the_block_computes(
    use: str, linear: type[PackedLinear | PlainLinear], dtype: torch.dtype
) -> None:
    (block, packed), x, given = pair(linear, dtype), tokens(dtype), uses(dtype)[use]
    found, kept = packed(x, **given)
    expected, kept_too = block(x, **given)
    exact, _ = copy.deepcopy(block).double()(x.double(), **uses(torch.float64)[use])
    assert found.shape == expected.shape
    assert near(found, expected, exact)
    assert (kept is None) == ("keep" not in given)
    for one, other in zip(kept or (), kept_too or (), strict=True):
        torch.testing.assert_close(one, other, rtol=2**-6, atol=2**-6)


@half
@torch.no_grad()
@pytest.mark.parametrize("count", [16, 20, 192, 230])
def test_one_block_hands_its_rows_to_the_next(count: int) -> None:
    """Nothing is filled up again but what attention makes, and whatever stands in rows nobody asked for stays there."""

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    names: list[str] = []
    (block, packed), x = pair(PackedLinear, torch.bfloat16), tokens(torch.bfloat16, count)
    between, _ = packed(x)
    expected, _ = block(between)
    torch.empty(1 << 16).fill_(torch.nan)
    with Operations():
        found, _ = packed(between)
    parts = 4 if 2 * count > 384 else 0  # the results of a long product's parts become one
    assert names.count("aten.cat.default") == parts + (2 * count % 32 > 0)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=2**-5, atol=2**-4)


@torch.no_grad()
@pytest.mark.parametrize(("linear", "dtype"), KINDS)
def test_its_argument_is_left_as_it_was(linear: type[PackedLinear | PlainLinear], dtype: torch.dtype) -> None:
    (_, packed), x = pair(linear, dtype), tokens(dtype)
    before = x.clone()
    first, _ = packed(x)
    kept = first.clone()
    packed(first)
    assert torch.equal(x, before)
    assert torch.equal(first, kept)


@pytest.mark.parametrize(("linear", "dtype"), KINDS)
def test_it_cannot_be_saved(linear: type[PackedLinear | PlainLinear], dtype: torch.dtype) -> None:
    _, packed = pair(linear, dtype)
    with pytest.raises(UsageError, match="save it before"):
        packed.state_dict()
