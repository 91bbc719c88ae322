"""The processes of a run: which one this is, what they tell each other, and how they share a model.

The only place that knows ranks. A run that torchrun did not start is a cluster of one, for which nothing here does
anything. Gradients are sums over all processes in either way of sharing, so that a mean over the whole batch can be
made of them afterwards.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from nova.errors import ResourceError
from nova.layers.transformer import Block

TIMEOUT = timedelta(minutes=10)
CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One process of `size`, and the device it works on."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def total(self, numbers: Tensor) -> Tensor:
        """The sum of `numbers` over the processes, known to all of them."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers

    def gathered(self, value: Any) -> list[Any]:
        """What each process has to say, in the order of their ranks, known to all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def on_main(self, act: Callable[[], object]) -> None:
        """Let the main process do something that the others wait for; its error is raised on all of them."""
        error = None
        if self.main:
            try:
                act()
            except Exception as raised:
                error = raised
        error = self.gathered(error)[0]
        if error is not None:
            raise error

    def share(self, count: int) -> range:
        """This process's part of `count` places, of which all have equally many."""
        part = count // self.size
        return range(self.rank * part, (self.rank + 1) * part)


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def cluster(device: str | torch.device = "cpu") -> Iterator[Cluster]:
    """The cluster that torchrun's variables describe, joined for as long as the context lasts.

    Raises ResourceError where the processes don't find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device(device)
    if size == 1:
        yield Cluster(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    except (dist.DistError, RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ResourceError(
            f"the {size} processes did not find each other at {where} ({error}); check that address and port are free "
            "and reachable, and that every machine starts as many processes as it says"
        ) from error
    try:
        yield Cluster(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()


def shared(objective: nn.Module, sharding: Literal["none", "full"], cluster: Cluster) -> nn.Module:
    """`objective` as the processes of the cluster run it together.

    `full` shards it in place, transformer blocks one by one: each process then holds a part of every tensor.
    """
    if sharding == "full" and cluster.size > 1:
        mesh = init_device_mesh(cluster.device.type, (cluster.size,))
        for module in objective.modules():
            if isinstance(module, Block):
                _shard(module, mesh)
        _shard(objective, mesh)
        return objective
    if cluster.size > 1:
        return DistributedDataParallel(objective, gradient_as_bucket_view=True)
    return objective


def _shard(module: nn.Module, mesh: DeviceMesh) -> None:
    sharded = fully_shard(module, mesh=mesh)
    sharded.set_gradient_divide_factor(1.0)
    sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other way of not dividing


@contextmanager
def gradients_later(network: nn.Module, wait: bool) -> Iterator[None]:
    """While `wait`, backward passes keep their gradients to themselves; the first one without it adds them all up."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(not wait)
        yield
    elif isinstance(network, DistributedDataParallel) and wait:
        with network.no_sync():
            yield
    else:
        yield


def gradient_factor(network: nn.Module) -> float:
    """What gradients must be multiplied by to be sums over the processes."""
    return dist.get_world_size() if isinstance(network, DistributedDataParallel) else 1.0


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor: the tensor itself, unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
