"""`nova convert`: a model folder in the published layout or in ours, written in the other or in the same one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nova.errors import UsageError


class Layout(StrEnum):
    """How a model folder names its parts."""

    nova = "nova"
    published = "published"


class Precision(StrEnum):
    """Types that weights are stored in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A model: a name, a folder or a hub id.")],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="The folder to write.")],
    to: Annotated[Layout, typer.Option(help="Ours, or the layout of the published weights.")] = Layout.nova,
    dtype: Annotated[
        Precision | None, typer.Option(help="Precision of the weights. (default: the finest that SOURCE stores)")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in DESTINATION.")] = False,
) -> None:
    """Write a model folder in our layout or in the published one."""
    if destination.exists() and not destination.is_dir():
        raise UsageError(f"{destination} is a file; name a folder")
    if destination.is_dir() and any(destination.iterdir()) and not overwrite:
        raise UsageError(f"{destination} exists and is not empty; name another, or give --overwrite to replace it")
    import torch

    from nova.checkpoints.folder import load_components, save_components
    from nova.checkpoints.locate import locate

    folder = locate(source)
    if destination.resolve() == folder.resolve():
        raise UsageError(f"{destination} is SOURCE itself; name another folder")
    precision = dtype or _finest(folder)
    save_components(load_components(folder, getattr(torch, precision.value)), destination, to.value)
    typer.echo(destination)


def _finest(folder: Path) -> Precision:
    """The least precision that holds every stored weight exactly."""
    from nova.checkpoints.folder import read_index
    from nova.weights import read_shapes

    parts = [part for part in read_index(folder) if part not in ("scheduler", "tokenizer")]
    stored = {kind for part in parts for _, kind in read_shapes(folder / part).values()}
    if stored <= {"F16"}:
        return Precision.float16
    return Precision.bfloat16 if stored <= {"BF16"} else Precision.float32
