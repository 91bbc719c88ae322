"""The JSON beside an output: everything needed to make the file again, and what `--from` reads back."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nova import __version__
from nova.cli.request import Sample, Settings, check_sample
from nova.errors import CheckpointError, DataError, UsageError
from nova.files import written_whole

MAX_BYTES = 16 << 20
MODEL_FILES = (".json", ".safetensors", ".txt", ".model")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Record):
    """A model by the name that was given, and the sha256 of each of its files."""

    name: str
    files: dict[str, str]


class Given(_Record):
    """An image or clip that was given, by the path that was given, and its sha256."""

    path: str
    sha256: str


class Environment(_Record):
    """What the numbers may depend on beside the options; another machine may round differently."""

    device: str
    device_name: str
    dtype: str
    threads: int = Field(ge=1, le=4096)
    batch: int = Field(default=1, ge=1)
    """Outputs made together. On a CPU always 1: there an output does not depend on its batch."""
    compiled: bool = False
    """Whether operations were fused."""
    nova: str = __version__
    python: str = Field(default_factory=platform.python_version)
    torch: str = Field(default_factory=lambda: version("torch"))
    diffusers: str = Field(default_factory=lambda: version("diffusers"))


class Output(_Record):
    """The file that was made; sizes in pixels."""

    file: str
    sha256: str
    frames: int
    height: int
    width: int


class Sidecar(_Record):
    """One output's record, as it stands in the file."""

    format: Literal[1] = 1
    sample: Sample
    options: Settings
    image: Given | None = None
    video: Given | None = None
    model: Model
    lora: Model | None = None
    environment: Environment
    output: Output


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write the record whole or not at all."""
    with written_whole(path) as draft:
        draft.write_text(sidecar.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_sidecar(path: Path) -> Sidecar:
    """Read a record; anything but what `write_sidecar` writes is an error that names file and field."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: over {MAX_BYTES >> 20} MiB; give a JSON that nova generate wrote")
        sidecar = Sidecar.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a JSON that nova generate wrote") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "content"
        raise DataError(f"{path}: {field}: {first['msg']}; give a JSON that nova generate wrote") from None
    check_sample(sidecar.sample)
    return sidecar


def given(path: Path | None) -> Given | None:
    """The record of an input file, or None without one."""
    return None if path is None else Given(path=str(path), sha256=sha256(path))


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(data: bytes) -> str:
    """The sha256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(folder: Path, parts: Iterable[str]) -> dict[str, str]:
    """sha256 of a model folder's index and of every configuration, vocabulary and weight file of its `parts`."""
    files = [folder / "model_index.json", *(path for part in parts for path in (folder / part).glob("*"))]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(files) if path.suffix in MODEL_FILES}


def adapter(folder: Path | None) -> Model | None:
    """The record of a LoRA adapter's folder, or None without one."""
    if folder is None:
        return None
    if not folder.is_dir():
        raise CheckpointError(f"--lora: {folder}: no such folder; give that of an adapter")
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.suffix in MODEL_FILES}
    return Model(name=str(folder), files=files)


def check_same_model(recorded: Model, found: Mapping[str, str], source: Path, option: str = "--model") -> None:
    """Refuse a model whose files are not those of the record."""
    for name, digest in recorded.files.items():
        if name not in found:
            raise CheckpointError(
                f"{source}: model {recorded.name} has no file {name}; give the recorded one by {option}"
            )
        if found[name] != digest:
            raise CheckpointError(
                f"{source}: model {recorded.name}: {name} has changed (sha256 {found[name][:12]}…, "
                f"recorded {digest[:12]}…); give the recorded one by {option}"
            )


def check_same_adapter(recorded: Model | None, found: Model | None, source: Path) -> None:
    """Refuse another LoRA adapter than the recorded one."""
    if recorded is not None and found is not None:
        check_same_model(recorded, found.files, source, "--lora")
    if recorded is None and found is not None:
        raise UsageError(f"--lora: {source} was made without one; leave it out")


def check_same_input(recorded: Given | None, found: Given | None, option: str, source: Path) -> None:
    """Refuse an image or clip whose bytes are not those of the record."""
    if recorded is not None and found is not None and found.sha256 != recorded.sha256:
        raise DataError(
            f"{source}: {found.path} is not the recorded input (sha256 {found.sha256[:12]}…, "
            f"recorded {recorded.sha256[:12]}…); give the right one by {option}"
        )
    if recorded is None and found is not None:
        raise UsageError(f"{option}: {source} was made without one; leave it out")
