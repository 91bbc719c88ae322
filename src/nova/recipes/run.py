"""One run from its configuration to its finished model in DIR/model.

A transformer's run may hold the runs that make what it needs: its autoencoder, its text encoder, the weights it
starts from. They are done first, each in a folder of its own inside the run's, and each can be gone on with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from signal import Signals
from typing import Any

from nova.checkpoints.folder import read_json
from nova.files import json_bytes, publish_folder, replace_durably
from nova.lock import run_lock
from nova.models.nova import NovaTransformer
from nova.recipes.observe import observer
from nova.recipes.parts import (
    MODEL,
    Folders,
    autoencoder_folder,
    load_initial,
    load_inputs,
    shipped_parts,
    text_encoder_folder,
)
from nova.recipes.record import record_start
from nova.recipes.settle import settle, settle_inputs
from nova.recipes.source import open_source
from nova.training.autoencoder import AutoencoderRun, autoencoder_task, export_autoencoder, new_autoencoder
from nova.training.cluster import Cluster
from nova.training.config import RunConfig
from nova.training.language import LanguageRun, export_text_encoder, language_task, new_language_model
from nova.training.lora import export_lora
from nova.training.task import Task
from nova.training.train import Observer, train
from nova.training.transformer import TransformerRun, export_transformer, new_transformer, transformer_task
from nova.weights import weights_digest

AnyRun = AutoencoderRun | LanguageRun | TransformerRun
ADAPTER, RESULT = "adapter", "result.json"


def run(config: AnyRun, folder: Path, cluster: Cluster = Cluster(), quiet: bool = False) -> Signals | None:  # noqa: B008
    """Train what `config` says in `folder`, or go on with it, and write `folder`/model and /result.json at the end.

    All processes of `cluster` call this alike; they share the folder. Returns the signal that stopped it before the
    end, if one did; the same call then goes on.

    Raises:
        UsageError: another run was started in the folder; the message names what differs.
        ResourceError: another process writes there, or the disk is full.
        CheckpointError, DataError: as `nova.training.train.train`.
    """
    return _run(config, folder, cluster, quiet, shipped_parts())


def _run(config: AnyRun, folder: Path, cluster: Cluster, quiet: bool, outer: Folders) -> Signals | None:
    with run_lock(folder) if cluster.main else nullcontext():
        cluster.on_main(lambda: _tell(settle(config, folder)))
        match config:
            case AutoencoderRun():
                return _autoencoder(config, folder, cluster, quiet)
            case LanguageRun():
                return _text_encoder(config, folder, cluster, quiet)
            case TransformerRun():
                return _transformer(config, folder, cluster, quiet, outer)


def _autoencoder(config: AutoencoderRun, folder: Path, cluster: Cluster, quiet: bool) -> Signals | None:
    model = new_autoencoder(config)
    task = autoencoder_task(config, model)
    return _train(task, config, folder, cluster, quiet, lambda made, path: export_autoencoder(made, config, path))


def _text_encoder(config: LanguageRun, folder: Path, cluster: Cluster, quiet: bool) -> Signals | None:
    model = new_language_model(config)
    task = language_task(config, model)
    return _train(task, config, folder, cluster, quiet, lambda made, path: export_text_encoder(made, config, path))


def _transformer(config: TransformerRun, folder: Path, cluster: Cluster, quiet: bool, outer: Folders) -> Signals | None:
    parts, given = outer, {}
    for field in ("autoencoder", "text_encoder", "initial"):
        value = getattr(config, field)
        if isinstance(value, RunConfig):
            stopped = _run(value, folder / field, cluster, quiet, parts)  # type: ignore[arg-type]
            if stopped is not None:
                return stopped
            value = str(folder / field)
        given[field] = value
        if field == "autoencoder" and value is not None:
            parts = replace(parts, autoencoder=autoencoder_folder(value))
        if field == "text_encoder" and value is not None:
            parts = replace(parts, text_encoder=text_encoder_folder(value))

    inputs = load_inputs(parts, with_text=config.model.classes is None)
    start = None if given["initial"] is None else load_initial(given["initial"])
    source = open_source(config, inputs, folder, cluster, quiet)
    digests = {"autoencoder": weights_digest(inputs.vae), "data": source.fingerprint}
    digests |= {f"data/{shard}": sha256 for shard, sha256 in source.shards.items()}
    if inputs.text_encoder is not None:
        digests["text_encoder"] = weights_digest(inputs.text_encoder)
    if start is not None:
        digests["initial"] = weights_digest(start)
    cluster.on_main(lambda: settle_inputs(digests, folder))
    cluster.on_main(lambda: _tell(source.notice))

    channels, *size = source.samples.buckets[0]
    text_dim = None if inputs.text_encoder is None else inputs.text_encoder.config.hidden_size
    model = new_transformer(config, (channels // 2, size[0], size[1], size[2]), text_dim, start)
    task = transformer_task(config, model, source.samples, inputs.autoencoder, source.encode)
    looks = observer(config, folder, inputs, source.held_out, source.encode, cluster)

    def export(made: NovaTransformer, path: Path) -> Mapping[str, float]:
        plain = made if config.lora is None else export_lora(made, folder / ADAPTER)
        return export_transformer(plain, config, inputs, path)

    return _train(task, config, folder, cluster, quiet, export, looks)


def _train(
    task: Task,
    config: RunConfig,
    folder: Path,
    cluster: Cluster,
    quiet: bool,
    export: Callable[[Any, Path], Mapping[str, float]],
    looks: Observer | None = None,
) -> Signals | None:
    """Train, then write the averaged model, unless it was written before."""
    result = folder / RESULT
    finished = result.exists() and read_json(result)["steps"] == config.steps

    cluster.on_main(lambda: _tell(None if finished else record_start(config, folder, task.model, cluster)))
    outcome = train(task, config, folder, cluster, quiet, looks)
    if outcome.stopped is not None:
        return outcome.stopped

    def publish() -> None:
        if finished:
            return
        figures: dict[str, float] = {"steps": config.steps, "skipped": outcome.state.skipped}
        publish_folder(folder / MODEL, lambda path: figures.update(export(outcome.model, path)))
        replace_durably(result, json_bytes(figures))

    cluster.on_main(publish)
    return None


def _tell(notice: str | None) -> None:
    if notice is not None:
        print(notice, file=sys.stderr)
