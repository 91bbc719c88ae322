"""A training step on tensors without numbers: what it would compute and hold, found before anything is allocated.

What is rehearsed is the step itself, its modules, precision and recomputation, on torch's fake tensors, which know
shapes, types and lifetimes. So the count follows the code, and a shape that does not fit shows here.
"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from nova.training.recompute import recompute_blocks
from nova.training.task import OnDevice

_MATRIX = {"cpu": 1536, "cuda": 8192}


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
    recompute: Literal["nothing", "blocks", "cheap"],
) -> Rehearsal:
    """The passes of `objective`, whose weights may be on the meta device, over `parts` times `batch`."""
    mode, held = FakeTensorMode(allow_non_fake_inputs=True), _Held()
    objective = copy.deepcopy(objective)
    recompute_blocks(objective, recompute)
    with mode:
        objective.to_empty(device=device)
    held.ignore(objective)
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    passes = min(parts, 2)  # from the second on, gradients are there already; the others are like it
    with mode, counter, held:
        on_device = batch.to(device)
        for _ in range(passes):
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                loss = objective(on_device).parts["loss"]
            loss.backward()
    return Rehearsal(counter.get_total_flops() * parts // passes, held.peak)


def matrix_speed(device: torch.device, bfloat16: bool, seconds: float = 0.3) -> float:
    """Operations a second of a large matrix product on `device`, measured for about so many `seconds`."""
    size = _MATRIX.get(device.type, 4096)
    numbers = torch.randn(2, size, size, device=device, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    left, right = numbers.unbind()

    def timed(act: Callable[[], Tensor]) -> float:
        start = time.perf_counter()
        act().flatten()[:1].cpu()  # waits for the device
        return time.perf_counter() - start

    timed(lambda: left @ right)
    start, best = time.perf_counter(), float("inf")
    while time.perf_counter() - start < seconds:
        best = min(best, timed(lambda: left @ right))
    return 2 * size**3 / best


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *rest: Any, **options: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *rest: Any, **options: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


_CPU_ATTENTION = {  # torch's counter knows the others
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class _Held(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def ignore(self, module: nn.Module) -> None:
        """Leave out the weights of `module`."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._alive[id(tensor.untyped_storage())] = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        made = function(*arguments, **(options or {}))
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
