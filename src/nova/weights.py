"""Weights on disk: safetensors files, whole or in shards, read with every check that a damaged download needs.

Nothing else is ever loaded: other formats can run code when they are opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nova.errors import CheckpointError

STEMS = ("diffusion_pytorch_model", "model")
"""File names used by diffusers' models and by transformers' models."""
Module = TypeVar("Module", bound=nn.Module)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_LFS_POINTER = b"version https://git-lfs"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: one file, its fp16 or bf16 variant, or the shards of an index."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: missing; the model folder is incomplete, download it again")
    for stem in STEMS:
        for variant in ("", ".fp16", ".bf16"):
            if (whole := folder / f"{stem}{variant}.safetensors").exists():
                return [whole]
            if (index := folder / f"{stem}.safetensors.index{variant}.json").exists():
                return _shards(index)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder / pickles[0]}: a pickle can run code and is not loaded; convert the weights to safetensors"
        )
    raise CheckpointError(f"{folder}: no {STEMS[0]}.safetensors or {STEMS[1]}.safetensors; download the folder again")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder, on the CPU in their stored precision."""
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                weights[name] = file.get_tensor(name)
    return weights


def read_shapes(folder: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and stored type of every tensor, from the headers alone."""
    shapes = {}
    for path in weight_files(folder):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(name)
                shapes[name] = (tuple(part.get_shape()), part.get_dtype())
    return shapes


def load_into(module: Module, weights: Mapping[str, Tensor], source: Path, dtype: torch.dtype | None = None) -> Module:
    """Give `module` exactly these weights, in `dtype` (None: as stored); `source` names them in errors.

    The module may have been built on the meta device. Missing, surplus or misshapen tensors are errors.
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    surplus = sorted(weights.keys() - expected.keys())
    if missing or surplus:
        parts = [f"{len(missing)} missing (first: {missing[0]})"] if missing else []
        parts += [f"{len(surplus)} unexpected (first: {surplus[0]})"] if surplus else []
        raise CheckpointError(f"{source}: weights do not fit the config: {', '.join(parts)}; is config.json its own?")
    for name, value in expected.items():
        if value.shape != weights[name].shape:
            found, wanted = tuple(weights[name].shape), tuple(value.shape)
            raise CheckpointError(f"{source}: {name} has shape {found}, the config says {wanted}")
    module.load_state_dict(
        {name: value if dtype is None else value.to(dtype) for name, value in weights.items()}, assign=True
    )
    return module


def weights_digest(model: nn.Module) -> str:
    """The sha256 of all weights of a model: its name for as long as it does not change."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f"{index}: not a weight index; download it again") from None
    files = [index.parent / str(name) for name in names]
    for path in files:
        if path.parent != index.parent or path.suffix != ".safetensors":
            raise CheckpointError(f"{index}: names {path}, not a safetensors file beside it; download it again")
        if not path.exists():
            raise CheckpointError(f"{path}: missing, though {index.name} lists it; download the folder again")
    return files


def _opened(path: Path) -> safe_open:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in that folder")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        size = path.stat().st_size
        raise CheckpointError(f"{path}: damaged or truncated ({size} bytes, {error}); download it again") from None
