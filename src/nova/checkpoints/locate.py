"""Where a model is: shipped with the package, in a folder, or on the Hugging Face hub."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from nova.errors import CheckpointError

SHIPPED = "digits"
"""Name of the small model that comes with the package."""

INDEX = "model_index.json"
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.md", "LICENSE*"]


def shipped_folder() -> Path:
    """The folder of the model that comes with the package."""
    return Path(str(resources.files("nova") / "pretrained" / SHIPPED))


def locate(model: str | Path, revision: str | None = None) -> Path:
    """The folder of a model given by name, path or hub id; only a hub id that is not cached needs the network.

    Raises:
        CheckpointError: no such folder, or the hub has no such model or cannot be reached.
    """
    if str(model) == SHIPPED:
        return shipped_folder()
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            raise CheckpointError(f"{folder / INDEX}: missing; this is not a model folder")
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder}: a file; give the model's folder, the one with {INDEX}")
    if str(model).count("/") != 1 or str(model)[0] in "./~":
        raise CheckpointError(
            f"{model}: no such folder; give a model folder, a hub id such as org/name, or {SHIPPED!r}"
        )
    return _download(str(model), revision)


def _download(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED))
    except (RepositoryNotFoundError, HFValidationError):
        raise CheckpointError(f"{model}: no such folder here and no such model on the hub; check the name") from None
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{model}: not downloaded yet and the hub cannot be reached; connect once, or give a local folder"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"{model}: download failed ({error}); the same command goes on where it stopped"
        ) from None
