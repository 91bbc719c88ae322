"""`torch.compile` for the modules that a network repeats: one compilation serves all of a kind."""

from __future__ import annotations

import torch
from torch import nn

KINDS_OF_INPUTS = 64
"""That code is compiled for. Each part of a network calls its blocks in its own way, with one token or with several,
and the first of a kind is taken for the only one. Past torch's 8 plain code would run, with a line in the log only."""


def compile_modules(
    network: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...], dynamic: bool | None, backend: str
) -> None:
    """Compile the modules of a kind in `network`, in place; it happens in their first calls.

    `dynamic` and `backend` are those of `torch.compile`. How many kinds of inputs code is compiled for is a setting of
    the whole process, and raised.
    """
    torch._dynamo.config.recompile_limit = max(KINDS_OF_INPUTS, torch._dynamo.config.recompile_limit)
    for module in network.modules():
        if isinstance(module, kind):
            module.compile(dynamic=dynamic, backend=backend)
