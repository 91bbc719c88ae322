"""One run from its configuration to its finished model in DIR/model.

A transformer's run may hold the runs that make what it needs: its autoencoder, its text encoder, the weights it
starts from. They are done first, each in a folder of its own inside the run's, and each can be gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from typing import TypeVar

import torch
from torch import nn

from nova.checkpoints.folder import load_autoencoder, load_transformer, read_json
from nova.checkpoints.locate import shipped_folder
from nova.data.moving_digits import World
from nova.errors import UsageError
from nova.files import json_bytes, publish_folder, replace_durably
from nova.models.nova import NovaTransformer
from nova.recipes.settle import settle, settle_inputs
from nova.text import load_text_encoder, load_tokenizer
from nova.training.autoencoder import AutoencoderRun, autoencoder_task, export_autoencoder, new_autoencoder
from nova.training.config import RunConfig
from nova.training.language import LanguageRun, export_text_encoder, language_task, new_language_model
from nova.training.latents import encoded_clips, weights_digest
from nova.training.lock import run_lock
from nova.training.log import counting_bar
from nova.training.train import Task, train
from nova.training.transformer import (
    Inputs,
    TransformerRun,
    export_transformer,
    new_transformer,
    transformer_task,
)

AnyRun = AutoencoderRun | LanguageRun | TransformerRun
Model = TypeVar("Model", bound=nn.Module)
MODEL, RESULT, LATENTS = "model", "result.json", "latents.safetensors"


@dataclass(frozen=True)
class Folders:
    """Where the frozen parts of a transformer are, each in a folder that its loader takes."""

    autoencoder: Path
    text_encoder: Path


def run(config: AnyRun, folder: Path, quiet: bool = False) -> Signals | None:
    """Train what `config` says in `folder`, or go on with it, and write `folder`/model and /result.json at the end.

    Returns the signal that stopped it before the end, if one did; the same call then goes on.

    Raises:
        UsageError: another run was started in the folder; the message names what differs.
        ResourceError: another process writes there, or the disk is full.
        CheckpointError, DataError: as `nova.training.train.train`.
    """
    return _run(config, folder, quiet, Folders(shipped_folder() / "vae", shipped_folder()))


def _run(config: AnyRun, folder: Path, quiet: bool, outer: Folders) -> Signals | None:
    with run_lock(folder):
        settle(config, folder)
        match config:
            case AutoencoderRun():
                return _autoencoder(config, folder, quiet)
            case LanguageRun():
                return _text_encoder(config, folder, quiet)
            case TransformerRun():
                return _transformer(config, folder, quiet, outer)


def _autoencoder(config: AutoencoderRun, folder: Path, quiet: bool) -> Signals | None:
    model = new_autoencoder(config)
    task = autoencoder_task(config, model)
    return _train(task, config, folder, quiet, model, lambda made, path: export_autoencoder(made, config, path))


def _text_encoder(config: LanguageRun, folder: Path, quiet: bool) -> Signals | None:
    model = new_language_model(config)
    task = language_task(config, model)
    return _train(task, config, folder, quiet, model, lambda made, path: export_text_encoder(made, config, path))


def _transformer(config: TransformerRun, folder: Path, quiet: bool, outer: Folders) -> Signals | None:
    parts = outer
    for field in ("autoencoder", "text_encoder", "initial"):
        value = getattr(config, field)
        if isinstance(value, RunConfig):
            stopped = _run(value, folder / field, quiet, parts)  # type: ignore[arg-type]
            if stopped is not None:
                return stopped
            value = str(folder / field)
        if field != "initial" and value is not None:
            parts = replace(parts, **{field: _part(Path(value), field)})

    vae_class = str(read_json(parts.autoencoder / "config.json").get("_class_name"))
    inputs = Inputs(
        load_autoencoder(parts.autoencoder, vae_class, torch.float32).requires_grad_(False),
        load_text_encoder(parts.text_encoder / "text_encoder"),
        load_tokenizer(parts.text_encoder / "tokenizer"),
    )
    start = None if config.initial is None else _start(config, folder)
    digests = {"autoencoder": weights_digest(inputs.vae), "text_encoder": weights_digest(inputs.text_encoder)}
    settle_inputs(digests | ({} if start is None else {"initial": weights_digest(start)}), folder)

    world = World(config.world.size, config.world.frames, config.world.seed)
    bfloat16 = config.precision == "bfloat16"
    with counting_bar("encoding clips", config.clips, quiet) as count:
        clips = encoded_clips(folder / LATENTS, world, config.clips, inputs.autoencoder, bfloat16, count)
    model = new_transformer(config, inputs, start)
    task = transformer_task(config, model, inputs, clips)
    return _train(task, config, folder, quiet, model, lambda made, path: export_transformer(made, config, inputs, path))


def _train(
    task: Task,
    config: RunConfig,
    folder: Path,
    quiet: bool,
    model: Model,
    export: Callable[[Model, Path], Mapping[str, float]],
) -> Signals | None:
    """Train, then write the averaged model, unless it was written before."""
    outcome = train(task, config, folder, quiet)
    if outcome.stopped is not None:
        return outcome.stopped
    result = folder / RESULT
    if not (result.exists() and read_json(result)["steps"] == config.steps):
        averaged = outcome.state.ema.applied_to(model)
        figures: dict[str, float] = {"steps": config.steps, "skipped": outcome.state.skipped}
        publish_folder(folder / MODEL, lambda path: figures.update(export(averaged, path)))
        replace_durably(result, json_bytes(figures))
    return None


def _part(folder: Path, field: str) -> Path:
    """The folder of an autoencoder, or the one that holds text_encoder/ and tokenizer/, in a run or model folder."""
    model = folder / MODEL if (folder / MODEL).is_dir() else folder
    if field == "autoencoder":
        model = model / "vae" if (model / "vae").is_dir() else model
    wanted = model / "config.json" if field == "autoencoder" else model / "text_encoder"
    if not wanted.exists():
        raise UsageError(f"{field}: {wanted} is missing; give the folder of a finished run or of a model")
    return model


def _start(config: TransformerRun, folder: Path) -> NovaTransformer:
    given = folder / "initial" if isinstance(config.initial, RunConfig) else Path(str(config.initial))
    model = given / MODEL if (given / MODEL).is_dir() else given
    model = model / "transformer" if (model / "transformer").is_dir() else model
    if not (model / "config.json").exists():
        raise UsageError(f"initial: {model / 'config.json'} is missing; give a finished run or a model folder")
    return load_transformer(model, torch.float32)
