"""Fused kernels: what generation repeats most often, made into few kernels by `torch.compile`.

Between matrix products a block normalises, adds and activates, and a step of the denoising MLP does little else. Alone,
each of these reads and writes all its numbers; fused, they are read and written once. On a GPU that is worth the wait
for the compiler; a CPU has little to win.
"""

from __future__ import annotations

import torch

from nova.layers.compiled import compile_modules
from nova.layers.transformer import Block
from nova.models.nova import NovaTransformer


def compile_model(model: NovaTransformer, backend: str = "inductor") -> None:
    """Compile the blocks of `model` and the denoising MLP's prediction, in place; its weights may still change.

    Compilation happens in the first calls, and serves all sizes. Results differ in the last bits. `backend` is one of
    `torch.compile`.
    """
    compile_modules(model, Block, dynamic=True, backend=backend)
    denoiser = model.denoiser
    predict = type(denoiser).predict.__get__(denoiser)  # a second call compiles anew, not what is compiled
    denoiser.predict = torch.compile(predict, dynamic=True, backend=backend)  # type: ignore[method-assign]
