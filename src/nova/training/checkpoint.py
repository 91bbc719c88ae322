"""Checkpoints: a folder `step-<n>` is published whole, verified byte by byte when read, and only then loaded.

Tensors go through torch's distributed checkpoints, as safetensors files: each process writes the parts it holds, and
any number of processes reads them again. A save writes all files and a manifest with their sizes and sha256 under
another name, flushes them to disk, and renames the folder; older ones are deleted after that. safetensors alone would
load most damaged files in silence.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from nova.errors import CheckpointError, ResourceError
from nova.files import json_bytes, reason, sync_file, sync_folder, write_durably
from nova.training.cluster import Cluster, local
from nova.training.state import PARTS, Tensors, TrainState, check_names

FORMAT = 2
MANIFEST = "manifest.json"
_COUNTERS = "counters.json"


def check_space(state: TrainState, folder: Path, keep: int, cluster: Cluster) -> None:
    """Raise ResourceError unless there is room in `folder` for `keep` checkpoints of `state` and one being written."""
    size = _bytes(state.tensors())

    def check() -> None:
        missing = max(1, keep + 1 - len(checkpoints(folder)))
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
        if missing * size > free:
            raise ResourceError(
                f"{folder}: checkpoints will take {missing * size} bytes more ({missing} of {size}), {free} are free; "
                "make room, lower keep_checkpoints, or choose another --output"
            )

    cluster.on_main(check)


def save(state: TrainState, folder: Path, keep: int, cluster: Cluster) -> Path:
    """Publish `state` as `folder`/step-<n>, then delete all but the newest `keep` checkpoints.

    All processes of the cluster take part.

    Raises:
        CheckpointError: a tensor holds a number that is not finite; nothing is written.
        ResourceError: the disk is full or not writable; older checkpoints are as before.
    """
    tensors = state.tensors()
    _check_finite(tensors, cluster)
    target = folder / f"step-{state.step}"
    aside = folder / f".incomplete-step-{state.step}"

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        write_durably(aside / _COUNTERS, json_bytes(state.counters()))

    def publish() -> None:
        write_durably(aside / MANIFEST, _manifest(state.step, files))
        sync_folder(aside)
        aside.rename(target)
        sync_folder(folder)
        delete_older(folder, keep)

    try:
        cluster.on_main(prepare)
        _write(tensors, aside, cluster)
        files = _digests(aside, cluster)
        cluster.on_main(publish)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise _unwritable(error, target, _bytes(tensors)) from error
    return target


def restore(state: TrainState, folder: Path, cluster: Cluster) -> dict[str, str]:
    """Bring `state` to the newest valid checkpoint in `folder`, if there is one at all.

    Returns what was wrong with the newer ones, by name; they are set aside as `damaged-…`, so that their step can be
    reached and saved again.

    Raises CheckpointError where there are checkpoints and none is valid, with each one's fault, and where a valid one
    is of another model; `state` is then as it was.
    """
    faults: dict[str, str] = {}
    for _, path in reversed(checkpoints(folder)):
        found = next((one for one in cluster.gathered(fault(path, cluster)) if one is not None), None)
        if found is None:
            _read(state, path, cluster)
            cluster.on_main(functools.partial(_set_aside, folder, faults))
            return faults
        faults[path.name] = found
    if faults:
        raise CheckpointError(
            f"{folder}: no valid checkpoint ({'; '.join(faults.values())}); "
            "restore one of them, or choose another --output to start anew"
        )
    cluster.on_main(functools.partial(_set_aside, folder, {}))
    return {}


def delete_older(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints in `folder`."""
    for _, old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every published checkpoint, oldest first, valid or not."""
    named = [(re.fullmatch(r"step-(\d+)", path.name), path) for path in folder.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in named if match)


def _bytes(tensors: Tensors) -> int:
    """The size of all tensors, whole where they are sharded."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _check_finite(tensors: Tensors, cluster: Cluster) -> None:
    here = next((name for name, tensor in tensors.items() if not torch.isfinite(local(tensor)).all()), None)
    name = next((name for name in cluster.gathered(here) if name is not None), None)
    if name is not None:
        raise CheckpointError(
            f"tensor {name!r} holds a number that is not finite, so it is not saved; "
            "resume from the last checkpoint with a lower learning rate"
        )


def _write(tensors: Tensors, folder: Path, cluster: Cluster) -> None:
    """Write the tensors, a file for each part and process. Raises OSError, on every process, if one cannot."""
    parts = {name: 1 + PARTS.index(name.partition(".")[0]) for name in tensors}
    writer = HuggingFaceStorageWriter(str(folder), parts, save_distributed=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process only
        try:
            dcp.save(dict(tensors), storage_writer=writer, no_dist=cluster.size == 1)
        except CheckpointException as error:
            raise _cause(error) from error


def _cause(error: CheckpointException) -> BaseException:
    """The first fault of any process: of the disk if there is one, else the whole error."""
    causes = [failure[0] for failure in error.failures.values()]
    return next((cause for cause in causes if isinstance(cause, OSError)), error)


def _read(state: TrainState, path: Path, cluster: Cluster) -> None:
    reader = HuggingFaceStorageReader(str(path))
    tensors = state.tensors()
    given = {name: one.size for name, one in reader.read_metadata().state_dict_metadata.items()}  # type: ignore[union-attr]
    try:
        check_names({name: tensor.shape for name, tensor in tensors.items()}, given)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(dict(tensors), storage_reader=reader, no_dist=cluster.size == 1)
    state.count(json.loads((path / _COUNTERS).read_bytes()))


def _digests(folder: Path, cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file, each worked out by one of the processes; the disk then has them."""
    mine = sorted(folder.iterdir())[cluster.rank :: cluster.size]
    for file in mine:
        sync_file(file)  # torch does so before it writes the last bytes, those that wait in a buffer
    here = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in mine}
    return {name: found for part in cluster.gathered(here) for name, found in part.items()}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _manifest(step: int, files: Mapping[str, Mapping[str, Any]]) -> bytes:
    body = {"format": FORMAT, "step": step, "files": dict(sorted(files.items()))}
    return json_bytes({**body, "sha256": hashlib.sha256(json_bytes(body)).hexdigest()})


def fault(path: Path, cluster: Cluster) -> str | None:
    """What is wrong with the checkpoint at `path`, as far as this process finds in its share of the files."""
    try:
        files = _read_manifest(path)["files"]
        strangers = sorted({entry.name for entry in path.iterdir()} - files.keys() - {MANIFEST})
        if strangers:
            raise CheckpointError(f"{path / strangers[0]}: not part of the checkpoint; remove it")
        for name in sorted(files)[cluster.rank :: cluster.size]:
            _verify(path / name, files[name])
    except CheckpointError as error:
        return str(error)
    return None


def _read_manifest(path: Path) -> dict[str, Any]:
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


def _verify(file: Path, expected: Mapping[str, Any]) -> None:
    try:
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise CheckpointError(f"{file}: {size} bytes, expected {expected['bytes']}; it was cut or replaced")
        if _sha256(file) != expected["sha256"]:
            raise CheckpointError(f"{file}: damaged, its sha256 is not the manifest's")
    except OSError as error:
        raise CheckpointError(f"{file}: {'missing' if isinstance(error, FileNotFoundError) else error}") from None


def _set_aside(folder: Path, names: Mapping[str, str]) -> None:
    for name in names:
        damaged = folder / f"damaged-{name}"
        shutil.rmtree(damaged, ignore_errors=True)
        (folder / name).rename(damaged)
    for left in folder.glob(".incomplete-step-*"):
        shutil.rmtree(left)


def _unwritable(error: OSError, target: Path, needed: int) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(target.parent).free
        return ResourceError(
            f"{target}: disk full, the checkpoint needs {needed} bytes and {free} are free; make room, then start again"
        )
    return ResourceError(f"{target}: cannot be written ({reason(error)}); mend that, then start the run again")
