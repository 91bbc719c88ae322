"""Linear layers for a CPU that only generates, which multiply the rows of a matrix.

In half precision torch's own layer lays out the weights anew in every call, adds the bias in a pass of its own, and
leaves the activation to another one. A packed layer has its weights laid out once, in the order in which oneDNN reads
them. In other precisions that would win little; there a plain layer only saves the memory of its activation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nova.errors import UsageError
from nova.layers.transformer import Projector

_ROWS, _MOST = 32, 384
"""Rows are multiplied by multiples of the first number: oneDNN makes kernels for each number of rows, which take a
third of a megabyte. And by at most the second: from 450 to 1300 of them some products, such as those 768 wide, run on
one thread only."""


def packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether layers of `dtype` on `device` gain by it: those in bfloat16 on a CPU that has instructions for it."""
    if device.type != "cpu" or dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():
        return False
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


class PackedLinear(nn.Module):
    """A linear layer and the activation after it, if any. Its weight can be read by `forward` only.

    `result` is the precision of what comes out; None leaves it as it is.
    """

    def __init__(
        self, layer: nn.Linear, activation: nn.Module | None = None, result: torch.dtype | None = None
    ) -> None:
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)
        kind, variant = _kind(activation)
        self.result = result
        self._linear = torch.ops.mkldnn._linear_pointwise.default
        self._given: tuple[Any, ...] = (self.weight, self.bias, kind, [], variant)

    def forward(self, x: Float[Tensor, "*lead inputs"]) -> Float[Tensor, "*lead outputs"]:
        """Apply to the last axis."""
        rows = x.numel() // x.shape[-1]
        return self.multiply(self.rows(x))[:rows].view(*x.shape[:-1], -1)

    @staticmethod
    def rows(x: Float[Tensor, "*lead width"]) -> Float[Tensor, "rows width"]:
        """The tokens of `x` as rows, and behind them as many as are wanting, whatever they hold: rows do not meet."""
        width = x.shape[-1]
        rows = x.numel() // width
        wanted = rows + -rows % _ROWS
        if rows == wanted:
            return x.reshape(rows, width)
        here = x.untyped_storage().nbytes() // x.element_size() - x.storage_offset()
        if x.is_contiguous() and here >= wanted * width:  # the result of another packed layer still has them
            return x.as_strided((wanted, width), (width, 1))
        return torch.cat([x.reshape(rows, width), x.new_empty(wanted - rows, width)])

    def multiply(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """`forward` for as many rows as `rows` gives."""
        if x.shape[0] > _MOST:
            return torch.cat([self.multiply(part) for part in x.split(_most(x.shape[0]))])
        made = self._linear(x, *self._given)
        return made if self.result is None else made.to(self.result)

    def _save_to_state_dict(self, *_: Any) -> None:
        raise UsageError("this model is packed for generation: save it before pack()")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        like = torch.empty(0, dtype=self.weight.dtype)
        moved = fn(like)
        if (moved.device, moved.dtype) != (like.device, like.dtype):
            raise UsageError("this model is packed for generation on a CPU: choose device and dtype before pack()")
        return self


class PlainLinear(nn.Module):
    """A linear layer as it is, and the GELU after it, if any, which takes no memory of its own."""

    def __init__(self, layer: nn.Linear, activation: nn.GELU | None = None) -> None:
        super().__init__()
        self.layer, self.activation = layer, activation
        self._given = (layer.weight, layer.bias)

    @staticmethod
    def rows(x: Float[Tensor, "*lead width"]) -> Float[Tensor, "rows width"]:
        """The tokens of `x` as rows."""
        return x.reshape(-1, x.shape[-1])

    def multiply(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """Apply to every row."""
        made = nn.functional.linear(x, *self._given)
        if self.activation is None:
            return made
        return torch.ops.aten.gelu_.default(made, approximate=self.activation.approximate)


def _most(rows: int) -> int:
    """Rows of each of the fewest, equal parts that are not too long."""
    part = -(-rows // -(-rows // _MOST))
    return part + -part % _ROWS


def pack(network: nn.Module) -> None:
    """Pack all linear layers within `network`, in place."""
    for parent in list(network.modules()):
        if isinstance(parent, Projector):
            parent.fc1 = PackedLinear(parent.fc1, parent.activation)  # type: ignore[assignment]
            parent.activation = nn.Identity()  # type: ignore[assignment]
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, PackedLinear(layer))


def _kind(activation: nn.Module | None) -> tuple[str, str]:
    """What oneDNN calls an activation, and its variant."""
    if activation is None:
        return "none", ""
    return ("gelu", activation.approximate) if isinstance(activation, nn.GELU) else ("swish", "")
