"""What all outputs of a job share, worked out before anything is loaded: a task, which can be sent to any worker."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nova.cli.request import Settings, in_flags
from nova.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from nova.cli.sidecar import Given, Model, Sidecar


@dataclasses.dataclass(frozen=True)
class Sources:
    """What the outputs are made from, as their sidecars record it."""

    model: Model
    lora: Model | None
    image: Given | None
    video: Given | None


@dataclasses.dataclass(frozen=True)
class Task:
    """How every output of a job is made."""

    settings: Settings
    """With frames and size filled in."""
    sets: int
    """Sets of tokens in one output, for telling progress."""
    suffix: str
    sources: Sources
    given: dict[str, np.ndarray]
    """The given image (H W 3) or clip (f H W 3), uint8, under the pipeline's name for it."""
    lora: Path | None
    device: str
    dtype: str
    threads: int | None
    offload: bool
    compiled: bool


def find_sources(model: str, folder: Path, lora: Path | None, image: Path | None, video: Path | None) -> Sources:
    """What the outputs are made from, with the sha256 of every file."""
    from nova.checkpoints.folder import read_index
    from nova.cli.sidecar import Model, adapter, fingerprint, given

    files = fingerprint(folder, read_index(folder))
    return Sources(Model(name=model, files=files), adapter(lora), given(image), given(video))


def check_same(found: Sources, recorded: Sidecar, path: Path) -> None:
    """Refuse a model, adapter or given file that is not the one `recorded` at `path`."""
    from nova.cli.sidecar import check_same_adapter, check_same_input, check_same_model

    check_same_model(recorded.model, found.model.files, path)
    check_same_adapter(recorded.lora, found.lora, path)
    check_same_input(recorded.image, found.image, "--image", path)
    check_same_input(recorded.video, found.video, "--video", path)


def read_given(image: Path | None, video: Path | None) -> dict[str, np.ndarray]:
    """The given image or clip, as the pipeline takes it."""
    from nova.media import read_image, read_video

    if image is not None:
        return {"image": read_image(image)}
    return {"video": read_video(video).frames} if video is not None else {}


def filled_in(settings: Settings, folder: Path, given: dict[str, Any]) -> tuple[Settings, int]:
    """`settings` with the frames and size that the model in `folder` will make, and its sets of tokens.

    Raises UsageError where the model cannot make them.
    """
    from nova.checkpoints.folder import read_index, read_transformer_config
    from nova.cli.info import unloaded_autoencoder
    from nova.pipeline.prepare import planned_size
    from nova.pipeline.request import Request

    config = read_transformer_config(folder / "transformer")
    autoencoder = unloaded_autoencoder(folder / "vae", read_index(folder)["vae"])
    request = Request(**{**dataclasses.asdict(settings), **given})
    try:
        planned = planned_size(config, autoencoder, request)
    except UsageError as error:
        raise UsageError(in_flags(str(error))) from error
    sizes = {"num_frames": planned.frames, "height": planned.height, "width": planned.width}
    return dataclasses.replace(settings, **sizes), planned.sets
