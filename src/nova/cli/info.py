"""`nova info`: what a model folder holds and can do, from its configs and the headers of its weights."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nova.errors import CheckpointError, DataError, nearest

if TYPE_CHECKING:
    from nova.autoencoders.adapter import Autoencoder
    from nova.models.config import NovaConfig

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
MAX_TEXT_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Part:
    """One network's weights."""

    kind: str
    parameters: int
    bytes: int
    dtype: str


@dataclasses.dataclass(frozen=True)
class Model:
    """A model folder; sizes in pixels and pixel frames, operations for one sample at the trained size."""

    folder: str
    layout: str
    condition: str
    makes: str
    frames: int
    height: int
    width: int
    positions: str
    scale_and_shift: str
    diffusion: str
    licence: str | None
    parts: dict[str, Part]
    generation_tflop: float
    training_tflop: float


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name, a folder or a hub id.")] = "digits",
    memory: Annotated[bool, typer.Option("--memory", help="Also compute what memory a generation takes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a model holds and can do. No weights are loaded."""
    from nova.checkpoints.locate import locate

    folder = locate(model)
    found = describe(folder)
    needs = needed_memory(folder) if memory else None
    if as_json:
        more = {} if needs is None else {"memory": dataclasses.asdict(needs)}
        typer.echo(json.dumps(dataclasses.asdict(found) | more))
        return
    for name, text in [*_lines(found), *([] if needs is None else _memory_lines(needs))]:
        typer.echo(f"{name:<16} {text}".rstrip())


def describe(folder: Path) -> Model:
    """Read configs and weight headers of a model folder."""
    from nova.checkpoints.folder import read_index, read_transformer_config
    from nova.diffusion.scheduler import Scheduler
    from nova.models.flops import generation_flops, training_flops

    index = read_index(folder)
    config = read_transformer_config(folder / "transformer")
    autoencoder = unloaded_autoencoder(folder / "vae", index["vae"])
    scheduler = Scheduler.from_pretrained(folder / "scheduler")
    return Model(
        folder=str(folder),
        layout="published" if index["transformer"].startswith("NOVA") else "nova",
        condition="text" if config.classes is None else f"{config.classes} classes",
        makes="videos and images" if config.is_video else "images",
        frames=autoencoder.frames(config.latent_frames),
        height=config.latent_height * autoencoder.spatial_stride,
        width=config.latent_width * autoencoder.spatial_stride,
        positions="3-D rotary" if config.rotary else "sines and cosines",
        scale_and_shift=_scale_and_shift(config),
        diffusion=type(scheduler.sampling).__name__.removesuffix("Process").lower(),
        licence=_licence(folder),
        parts={part: _part(folder / part, index[part]) for part in index if part not in ("scheduler", "tokenizer")},
        generation_tflop=generation_flops(config).total / 1e12,
        training_tflop=3 * training_flops(config).total / 1e12,
    )


@dataclasses.dataclass(frozen=True)
class Needs:
    """Memory of one sample at the trained size in bfloat16, in bytes, computed; a GPU's own needs are not in it."""

    all_on_gpu: int
    offloaded: int
    """With --offload: one part at a time, and the autoencoder frame by frame."""
    offloaded_parts: dict[str, int]


def needed_memory(folder: Path) -> Needs:
    """What memory a generation with the model in `folder` takes. No weights are loaded."""
    import torch

    from nova.checkpoints.folder import read_index, read_transformer_config
    from nova.evaluation.memory import generation_memory
    from nova.models.nova import NovaTransformer
    from nova.text import unloaded_text_encoder

    index = read_index(folder)
    config = read_transformer_config(folder / "transformer")
    found = []
    for sliced in (False, True):
        with torch.device("meta"):
            transformer = NovaTransformer(config)
        text = unloaded_text_encoder(folder / "text_encoder") if "text_encoder" in index else None
        vae = unloaded_autoencoder(folder / "vae", index["vae"]).module
        found.append(generation_memory(transformer, vae, text, torch.bfloat16, sliced))
    plain, sparing = found
    parts = {part.name: part.weights + part.working for part in sparing.parts}
    return Needs(plain.together, sparing.offloaded, parts)


def unloaded_autoencoder(folder: Path, name: str) -> Autoencoder:
    """The autoencoder of class `name` without weights; it knows its strides."""
    import torch

    from nova.autoencoders.adapter import FAMILIES, Autoencoder
    from nova.autoencoders.video import VideoAutoencoder
    from nova.checkpoints.folder import read_json

    families: dict[str, Any] = {family.__name__: family for family in FAMILIES}
    families["AutoencoderKLOpenSora"] = VideoAutoencoder
    if name not in families:
        raise CheckpointError(f"{folder}: autoencoder class {name!r} is not known{nearest(name, families)}")
    with torch.device("meta"):
        return Autoencoder(families[name].from_config(read_json(folder / "config.json")))


def _part(folder: Path, kind: str) -> Part:
    from nova.weights import read_shapes

    shapes = read_shapes(folder)
    sizes = [(math.prod(shape), stored) for shape, stored in shapes.values()]
    stored = Counter({name: sum(size for size, kind in sizes if kind == name) for _, name in sizes})
    return Part(
        kind=kind,
        parameters=sum(size for size, _ in sizes),
        bytes=sum(size * BYTES.get(name, 4) for size, name in sizes),
        dtype=" and ".join(name for name, _ in stored.most_common()),
    )


def _scale_and_shift(config: NovaConfig) -> str:
    if not config.scale_shift:
        return "none"
    return "vanilla" if config.scale_shift_rank is None else f"rank {config.scale_shift_rank}"


def _licence(folder: Path) -> str | None:
    """The licence that the README's front matter names, else the first line of a LICENSE file, else None."""
    readme = _text(folder / "README.md")
    front = re.match(r"---\s*\n(.*?)\n---\s*\n", readme, re.DOTALL)
    named = re.search(r"^license:[ \t]*(\S.*)$", front[1], re.MULTILINE) if front else None
    if named:
        return named[1].strip().strip("'\"")
    return next((line.strip() for line in _text(folder / "LICENSE").splitlines() if line.strip()), None)


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise DataError(f"{path}: over {MAX_TEXT_BYTES >> 20} MiB; this is no licence or README")
    return path.read_text(encoding="utf-8", errors="replace")


def _lines(model: Model) -> list[tuple[str, str]]:
    """What is printed, as names and texts."""
    length = f"{model.frames} frames of " if model.frames > 1 else ""
    lines = [
        ("folder", model.folder),
        ("layout", model.layout),
        ("makes", f"{model.makes} from {model.condition}"),
        ("trained on", f"{length}{model.height}x{model.width} pixels"),
        ("positions", model.positions),
        ("scale and shift", model.scale_and_shift),
        ("diffusion", model.diffusion),
        ("licence", model.licence or "not stated in the folder"),
    ]
    for name, part in model.parts.items():
        size = f"{part.parameters / 1e6:.1f} M parameters, {part.dtype}, {part.bytes / 1e6:.1f} MB"
        lines.append((name, f"{size} ({part.kind})"))
    lines.append(("to generate", f"{_flop(model.generation_tflop)} a sample (64 steps, 25 diffusion steps, guided)"))
    lines.append(("to train", f"{_flop(model.training_tflop)} a sample and step"))
    return lines


def _memory_lines(needs: Needs) -> list[tuple[str, str]]:
    """Memory, as names and texts."""
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in needs.offloaded_parts.items())
    return [
        ("memory", f"{_gib(needs.all_on_gpu)} for one sample in bfloat16 (computed)"),
        ("with --offload", f"{_gib(needs.offloaded)} ({parts})"),
    ]


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"


def _flop(tera: float) -> str:
    return f"{tera:,.1f} TFLOP" if tera >= 1 else f"{1000 * tera:.3g} GFLOP"
