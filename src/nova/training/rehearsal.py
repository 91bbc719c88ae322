"""A training step on tensors without numbers: what it would compute and hold, found before anything is allocated.

What is rehearsed is the step itself, its modules, precision and recomputation, on torch's fake tensors, which know
shapes, types and lifetimes. So the count follows the code, and a shape that does not fit shows here.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from nova.training.config import Recompute
from nova.training.recompute import autocast, recompute_blocks
from nova.training.task import OnDevice


@dataclass(frozen=True)
class Rehearsal:
    """What one process does in the forward and backward passes of a step.

    flops: operations in matrix products, convolutions and attention, recomputed ones included.
    peak: the most bytes held at a time beside the weights: gradients, what the backward pass needs, temporaries.
    """

    flops: int
    peak: int


def rehearse(
    objective: nn.Module,
    batch: OnDevice,
    parts: int,
    device: torch.device,
    bfloat16: bool,
    recompute: Recompute,
) -> Rehearsal:
    """The passes of `objective`, whose weights may be on the meta device, over `parts` times `batch`."""
    mode, account = FakeTensorMode(allow_non_fake_inputs=True), Account()
    objective = copy.deepcopy(objective)
    recompute_blocks(objective, recompute)
    with mode:
        objective.to_empty(device=device)
    account.leave_out(objective)
    passes = min(parts, 2)  # from the second on, gradients are there already; the others are like it
    with mode, account:
        on_device = batch.to(device)
        for _ in range(passes):
            with autocast(device, bfloat16, recompute):
                loss = objective(on_device).parts["loss"]
            loss.backward()
    return Rehearsal(account.flops * parts // passes, account.peak)


class Account(TorchDispatchMode):
    """Counts operations, and the bytes of all tensors that are alive, while it is entered.

    torch's own counter of operations follows modules by hooks, which keep alive what recomputation would have freed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def leave_out(self, module: nn.Module) -> None:
        """Don't count the weights of `module`."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._alive[id(tensor.untyped_storage())] = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        made = function(*arguments, **(options or {}))
        self.flops += _flops(function.overloadpacket, arguments, options or {}, made)
        for value in tree_iter(made):
            if isinstance(value, Tensor):
                self._hold(value)
        return made

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            self.now += self._alive[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._alive.pop(key)


def _flops(operation: Any, arguments: Sequence[Any], options: Mapping[str, Any], made: Any) -> int:
    """Operations of a matrix product, a convolution or attention, as torch counts them; 0 of anything else."""
    aten = torch.ops.aten
    if operation is aten._scaled_dot_product_flash_attention_for_cpu:  # which torch's formulas leave out
        return sdpa_flop_count(*(tensor.shape for tensor in arguments[:3]))
    if operation is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return sdpa_backward_flop_count(*(tensor.shape for tensor in arguments[:4]))
    formula = flop_registry.get(operation)
    return 0 if formula is None else formula(*arguments, **options, out_val=made)
