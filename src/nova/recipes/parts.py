"""The models that a transformer's run builds on: where they are, and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from nova.checkpoints.folder import load_autoencoder, load_transformer, read_json
from nova.checkpoints.locate import locate, shipped_folder
from nova.errors import CheckpointError, UsageError
from nova.models.nova import NovaTransformer
from nova.text import load_text_encoder, load_tokenizer
from nova.training.transformer import Inputs

MODEL = "model"
"""Where a finished run keeps its model."""


@dataclass(frozen=True)
class Folders:
    """Where the frozen parts of a transformer are, each in a folder that its loader takes."""

    autoencoder: Path
    text_encoder: Path


def shipped_parts() -> Folders:
    """Those of the model that comes with the package."""
    return Folders(shipped_folder() / "vae", shipped_folder())


def autoencoder_folder(given: str) -> Path:
    """The autoencoder of a finished run, of a model given by folder or hub id, or in a folder of its own."""
    model = _model_folder(given, "autoencoder")
    model = model / "vae" if (model / "vae").is_dir() else model
    return _with(model, model / "config.json", "autoencoder")


def text_encoder_folder(given: str) -> Path:
    """The folder that holds text_encoder/ and tokenizer/, of a finished run or of a model by folder or hub id."""
    model = _model_folder(given, "text_encoder")
    return _with(model, model / "text_encoder", "text_encoder")


def load_inputs(folders: Folders, with_text: bool) -> Inputs:
    """The frozen parts, in float32 on the CPU."""
    name = str(read_json(folders.autoencoder / "config.json").get("_class_name"))
    vae = load_autoencoder(folders.autoencoder, name, torch.float32).requires_grad_(False)
    if not with_text:
        return Inputs(vae)
    text = folders.text_encoder
    return Inputs(vae, load_text_encoder(text / "text_encoder"), load_tokenizer(text / "tokenizer"))


def initial_folder(given: str) -> Path:
    """The transformer of a finished run, of a model given by folder or hub id, or in a folder of its own."""
    model = _model_folder(given, "initial")
    model = model / "transformer" if (model / "transformer").is_dir() else model
    return _with(model, model / "config.json", "initial")


def load_initial(given: str) -> NovaTransformer:
    """The transformer to start from, in float32."""
    return load_transformer(initial_folder(given), torch.float32)


def _model_folder(given: str, field: str) -> Path:
    folder = Path(given).expanduser()
    if (folder / MODEL).is_dir():
        return folder / MODEL
    if folder.is_dir():
        return folder
    try:
        return locate(given)
    except CheckpointError as error:
        raise UsageError(f"{field}: {error}") from None


def _with(folder: Path, wanted: Path, field: str) -> Path:
    if not wanted.exists():
        raise UsageError(f"{field}: {wanted} is missing; give the folder of a finished run or of a model")
    return folder
