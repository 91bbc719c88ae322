"""Checkpoints: a folder `step-<n>` is published whole, verified byte by byte when read, and only then loaded.

A save writes all files and a manifest with their sizes and sha256 under another name, flushes them to disk, and
renames the folder; older ones are deleted after that. safetensors alone would load most damaged files in silence.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from nova.errors import CheckpointError, ResourceError
from nova.files import json_bytes, sync_folder, write_durably
from nova.training.state import Tensors, TrainState

FORMAT = 1
MANIFEST = "manifest.json"
_COUNTERS = "counters.json"
_PARTS = ("weights", "ema", "optimizer")


@dataclass(frozen=True)
class Found:
    """The newest valid checkpoint of a run, and what was wrong with the newer ones (folder name -> fault)."""

    path: Path
    tensors: Mapping[str, Tensors]
    counters: Mapping[str, int]
    faults: Mapping[str, str]


def save(state: TrainState, folder: Path, keep: int) -> Path:
    """Publish `state` as `folder`/step-<n>, then delete all but the newest `keep` checkpoints.

    Raises:
        CheckpointError: a tensor holds a number that is not finite; nothing is written.
        ResourceError: the disk is full or not writable; older checkpoints are as before.
    """
    files = {f"{part}.safetensors": _serialized(part, tensors) for part, tensors in state.tensors().items()}
    files[_COUNTERS] = json_bytes(state.counters())
    target = folder / f"step-{state.step}"
    aside = folder / f".incomplete-step-{state.step}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for name, data in files.items():
            write_durably(aside / name, data)
        write_durably(aside / MANIFEST, _manifest(state.step, files))
        sync_folder(aside)
        aside.rename(target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise _unwritable(error, target, sum(map(len, files.values()))) from error
    for _, old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every published checkpoint, oldest first, valid or not."""
    named = [(re.fullmatch(r"step-(\d+)", path.name), path) for path in folder.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in named if match)


def find(folder: Path) -> Found | None:
    """Read the newest valid checkpoint in `folder`; None where there is none at all.

    Raises CheckpointError where there are checkpoints and none is valid, with each one's fault.
    """
    faults: dict[str, str] = {}
    for _, path in reversed(checkpoints(folder)):
        try:
            tensors, counters = read(path)
        except CheckpointError as error:
            faults[path.name] = str(error)
        else:
            return Found(path, tensors, counters, faults)
    if faults:
        raise CheckpointError(
            f"{folder}: no valid checkpoint ({'; '.join(faults.values())}); "
            "restore one of them, or choose another --output to start anew"
        )
    return None


def read(path: Path) -> tuple[dict[str, Tensors], dict[str, int]]:
    """Tensors and counters of the checkpoint at `path`. Raises CheckpointError unless every byte is as saved."""
    manifest = _read_manifest(path)
    files = {name: _verified(path / name, expected) for name, expected in manifest["files"].items()}
    strangers = sorted({entry.name for entry in path.iterdir()} - files.keys() - {MANIFEST})
    if strangers:
        raise CheckpointError(f"{path / strangers[0]}: not part of the checkpoint; remove it")
    tensors = {part: safetensors.torch.load(files[f"{part}.safetensors"]) for part in _PARTS}
    return tensors, json.loads(files[_COUNTERS])


def set_aside(folder: Path, names: Mapping[str, str]) -> None:
    """Rename damaged checkpoints to `damaged-…`, so that their step can be reached and saved again."""
    for name in names:
        damaged = folder / f"damaged-{name}"
        shutil.rmtree(damaged, ignore_errors=True)
        (folder / name).rename(damaged)
    for left in folder.glob(".incomplete-step-*"):
        shutil.rmtree(left)


def _serialized(part: str, tensors: Tensors) -> bytes:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{part}: tensor {name!r} holds a number that is not finite, so it is not saved; "
                "resume from the last checkpoint with a lower learning rate"
            )
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _manifest(step: int, files: Mapping[str, bytes]) -> bytes:
    listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    body = {"format": FORMAT, "step": step, "files": listed}
    return json_bytes({**body, "sha256": hashlib.sha256(json_bytes(body)).hexdigest()})


def _read_manifest(path: Path) -> dict:
    file = path / MANIFEST
    try:
        data = file.read_bytes()
        manifest = json.loads(data)
        body = {key: value for key, value in manifest.items() if key != "sha256"}
        # Exactly the bytes that were written: a flipped space is a sign of damage too.
        whole = data == json_bytes(manifest) and manifest["sha256"] == hashlib.sha256(json_bytes(body)).hexdigest()
    except FileNotFoundError:
        raise CheckpointError(f"{file}: missing, the checkpoint is incomplete") from None
    except (OSError, ValueError, AttributeError, KeyError):
        whole = False
    if not whole:
        raise CheckpointError(f"{file}: damaged, its own checksum does not fit")
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{file}: checkpoint format {manifest['format']}, this version of nova reads {FORMAT}; "
            "use the version that wrote it"
        )
    return manifest


def _verified(file: Path, expected: Mapping[str, int | str]) -> bytes:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{file}: missing") from None
    if len(data) != expected["bytes"]:
        raise CheckpointError(f"{file}: {len(data)} bytes, expected {expected['bytes']}; it was cut or replaced")
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise CheckpointError(f"{file}: damaged, its sha256 is not the manifest's")
    return data


def _unwritable(error: OSError, target: Path, needed: int) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(target.parent).free
        return ResourceError(f"{target}: disk full, the checkpoint needs {needed} bytes and {free} are free")
    return ResourceError(f"{target}: cannot write the checkpoint: {error.strerror or error}")
