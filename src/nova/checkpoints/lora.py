"""LoRA adapters on disk, in PEFT's files, and in a transformer: saved, put beside its weights, folded into them.

An adapter adds B A, scaled, to the weights of some linear layers. Where `adapter_config.json` asks for more than that
(another method, ranks that differ, code of another library) it is refused.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nova.checkpoints.folder import read_json
from nova.errors import CheckpointError, UsageError, nearest
from nova.files import json_bytes
from nova.models.nova import NovaTransformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER = "default"
"""The adapter's name among PEFT's; a model here has one at most."""
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")
_READ = ("r", "lora_alpha", "use_rslora")
_TOLD = {  # says where an adapter comes from and how it was begun, not what it is
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("target_modules", "exclude_modules", "inference_mode", "lora_dropout", "init_lora_weights"),
}


def peft() -> ModuleType:
    """The library PEFT, imported when it is needed. Raises UsageError where it is not installed."""
    try:
        import peft
    except ImportError as missing:
        raise UsageError("LoRA needs peft; install it with: pip install 'nova-video[train]'") from missing
    return peft


def save_lora(model: NovaTransformer, folder: Path) -> None:
    """Write the adapter of `model` to `folder`, as PEFT does; its numbers keep their precision."""
    config = model.peft_config[ADAPTER].to_dict() | {"inference_mode": True}
    fields = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    state = peft().get_peft_model_state_dict(model, adapter_name=ADAPTER)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_bytes(json_bytes(fields))
    tensors = {_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_lora(model: NovaTransformer, folder: Path) -> NovaTransformer:
    """Put the adapter in `folder` beside the weights of `model`, which is returned; all but the adapter is frozen.

    Raises CheckpointError for files that are missing or damaged and for an adapter of another model or method; the
    model is then as it was.
    """
    settings, weights = _settings(folder / CONFIG), _weights(folder / WEIGHTS)
    layers = _layers(model, weights, settings["r"], folder)
    model.add_adapter(peft().LoraConfig(**settings, target_modules=layers), ADAPTER)
    peft().set_peft_model_state_dict(model, weights, adapter_name=ADAPTER)
    return model


@torch.no_grad()
def merge_lora(model: NovaTransformer) -> NovaTransformer:
    """Fold the adapter of `model` into its weights; the same model is returned, plain again, with its plain names."""
    model.fuse_lora()
    model.unload_lora()
    return model


def _settings(path: Path) -> dict[str, Any]:
    """What `LoraConfig` needs to know of an adapter's config."""
    fields = read_json(path)
    plain = peft().LoraConfig()
    if fields.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: peft_type is {fields.get('peft_type')!r}; only LORA adapters are read")
    for name, value in fields.items():
        if name not in _TOLD and name not in _READ and value and value != getattr(plain, name, None):
            raise CheckpointError(f"{path}: {name} is {value!r}; only plain LoRA is read, train the adapter without it")
    rank, alpha = fields.get("r"), fields.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1:
        raise CheckpointError(f"{path}: r is {rank!r}, expected a whole number from 1 on; get a whole copy")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CheckpointError(f"{path}: lora_alpha is {alpha!r}, expected a number; get a whole copy")
    return {"r": rank, "lora_alpha": alpha, "use_rslora": bool(fields.get("use_rslora"))}


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; give the folder of an adapter, with {CONFIG} and {WEIGHTS}")
    try:
        return {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); get a whole copy") from None


def _layers(model: NovaTransformer, weights: dict[str, Tensor], rank: int, folder: Path) -> list[str]:
    """The layers that `weights` are for, each with both its matrices, of the right shapes."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    expected = {}
    for name in weights:
        found = _TENSOR.fullmatch(name)
        if found is None or found["layer"] not in linear:
            raise CheckpointError(f"{folder / WEIGHTS}: {name} fits no layer of this model{nearest(name, linear)}")
        layer = linear[found["layer"]]
        expected[f"{found['layer']}.lora_A.weight"] = (rank, layer.in_features)
        expected[f"{found['layer']}.lora_B.weight"] = (layer.out_features, rank)
    for name, shape in expected.items():
        given = tuple(weights[name].shape) if name in weights else "missing"
        if given != shape:
            raise CheckpointError(f"{folder / WEIGHTS}: {name} is {given}, expected {shape}; is it for this model?")
    return sorted(name for name in linear if f"{name}.lora_A.weight" in expected)
