"""A model folder as a whole: `model_index.json` and one folder for each component, ours or published.

Classes are looked up in fixed tables. Nothing in a folder can name code to run, whatever its configs say.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from nova.autoencoders.video import VideoAutoencoder
from nova.checkpoints import published
from nova.checkpoints.locate import INDEX
from nova.diffusion.scheduler import Scheduler
from nova.errors import CheckpointError, UsageError, nearest
from nova.models.config import NovaConfig
from nova.models.nova import NovaTransformer
from nova.text import load_text_encoder, load_tokenizer
from nova.weights import STEMS, load_into, read_weights, weight_files

PIPELINES = ("NovaPipeline", "NOVAPipeline", "NOVAC2IPipeline")
_VIDEO_AUTOENCODERS = ("VideoAutoencoder", "AutoencoderKLOpenSora")
_DIFFUSERS_AUTOENCODERS = ("AutoencoderKL", "AutoencoderKLCogVideoX", "AutoencoderKLLTXVideo", "AutoencoderKLWan")


@dataclasses.dataclass(frozen=True)
class Components:
    """The parts of a model, as `NovaPipeline` takes them."""

    transformer: NovaTransformer
    scheduler: Scheduler
    vae: nn.Module
    text_encoder: Any | None = None
    tokenizer: Any | None = None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object on disk; anything else is an error that names the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; the model folder is incomplete, download it again") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}, not a JSON object; download it again")
    return found


def read_index(folder: Path) -> dict[str, str]:
    """Class name of every component that `model_index.json` lists."""
    index = read_json(folder / INDEX)
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise CheckpointError(
            f"{folder / INDEX}: _class_name is {name!r}, not a NOVA pipeline ({', '.join(PIPELINES)})"
        )
    parts = {key: value for key, value in index.items() if isinstance(value, list) and len(value) == 2 and value[1]}
    for part in ("transformer", "scheduler", "vae"):
        if part not in parts:
            raise CheckpointError(f"{folder / INDEX}: lists no {part}; this is not a complete model folder")
    return {part: str(value[1]) for part, value in parts.items()}


def read_transformer_config(folder: Path) -> NovaConfig:
    """The transformer's config, from a folder in either layout."""
    path = folder / "config.json"
    config = read_json(path)
    name = config.get("_class_name")
    if name == published.CLASS_NAME:
        return published.read_config(config)
    if name != NovaTransformer.__name__:
        raise CheckpointError(f"{path}: _class_name is {name!r}, not a NOVA transformer")
    try:
        return NovaConfig.from_dict({key: value for key, value in config.items() if not key.startswith("_")})
    except (UsageError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def load_transformer(folder: Path, dtype: torch.dtype) -> NovaTransformer:
    """A transformer from a folder in either layout."""
    config = read_transformer_config(folder)
    weights = read_weights(folder)
    if read_json(folder / "config.json")["_class_name"] == published.CLASS_NAME:
        weights = published.read_weights(weights, config)
    with torch.device("meta"):
        model = NovaTransformer(config)
    return load_into(model, weights, folder, dtype).eval()


def load_autoencoder(folder: Path, name: str, dtype: torch.dtype) -> nn.Module:
    """The autoencoder of class `name`: our video one, or one of diffusers'."""
    if name in _VIDEO_AUTOENCODERS:
        config = {key: value for key, value in read_json(folder / "config.json").items() if not key.startswith("_")}
        try:
            with torch.device("meta"):
                model = VideoAutoencoder(**config)
        except (TypeError, UsageError) as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}") from None
        return load_into(model, read_weights(folder), folder, dtype).eval()
    if name not in _DIFFUSERS_AUTOENCODERS:
        known = (*_VIDEO_AUTOENCODERS, *_DIFFUSERS_AUTOENCODERS)
        raise CheckpointError(f"{folder}: autoencoder class {name!r} is not known{nearest(name, known)}")
    weight_files(folder)  # names what is missing or not safetensors before diffusers looks
    import diffusers

    try:
        return getattr(diffusers, name).from_pretrained(folder, torch_dtype=dtype, use_safetensors=True).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: {str(error).splitlines()[0]}") from None


def load_components(folder: Path, dtype: torch.dtype) -> Components:
    """All parts of a model folder, in `dtype`, on the CPU."""
    index = read_index(folder)
    has_text = "text_encoder" in index
    return Components(
        transformer=load_transformer(folder / "transformer", dtype),
        scheduler=Scheduler.from_pretrained(folder / "scheduler"),
        vae=load_autoencoder(folder / "vae", index["vae"], dtype),
        text_encoder=load_text_encoder(folder / "text_encoder", dtype) if has_text else None,
        tokenizer=load_tokenizer(folder / "tokenizer") if has_text else None,
    )


def save_components(parts: Components, folder: Path, layout: str = "nova") -> None:
    """Write a model folder in our layout or in the `published` one; what was there is replaced once all is written."""
    if layout not in ("nova", "published"):
        raise UsageError(f"layout: {layout!r}{nearest(layout, ('nova', 'published'))}")
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        _write(parts, Path(scratch), published_layout=layout == "published")
        folder.mkdir(exist_ok=True)
        for item in Path(scratch).iterdir():
            target = folder / item.name
            if target.is_dir():
                shutil.rmtree(target)
            item.replace(target)


def _write(parts: Components, folder: Path, published_layout: bool) -> None:
    """All files of a model folder into an empty `folder`."""
    names = {
        "transformer": type(parts.transformer).__name__,
        "scheduler": str(parts.scheduler.config["_class_name"]),
        "vae": type(parts.vae).__name__,
    }
    libraries = {"transformer": "nova", "scheduler": "diffusers", "vae": type(parts.vae).__module__.split(".")[0]}
    parts.scheduler.save_pretrained(folder / "scheduler")
    parts.vae.save_pretrained(folder / "vae")  # type: ignore[operator]
    if parts.text_encoder is not None and parts.tokenizer is not None:
        names |= {"text_encoder": type(parts.text_encoder).__name__, "tokenizer": type(parts.tokenizer).__name__}
        libraries |= {"text_encoder": "transformers", "tokenizer": "transformers"}
        parts.text_encoder.save_pretrained(folder / "text_encoder")
        parts.tokenizer.save_pretrained(folder / "tokenizer")
    if published_layout:
        names |= _rewrite_as_published(parts, folder)
    else:
        parts.transformer.save_pretrained(folder / "transformer")
    pipeline = {False: "NovaPipeline", True: "NOVAPipeline" if parts.text_encoder is not None else "NOVAC2IPipeline"}
    index = {"_class_name": pipeline[published_layout]} | {part: [libraries[part], names[part]] for part in names}
    _write_json(folder / INDEX, index)


def _rewrite_as_published(parts: Components, folder: Path) -> dict[str, str]:
    """Write the transformer, and rename what else the published code names otherwise; returns those class names."""
    names = {"transformer": published.CLASS_NAME}
    model = parts.transformer
    _write_json(folder / "transformer" / "config.json", published.write_config(model.shape))
    weights = published.write_weights(model.state_dict(), model.shape)
    save_file(weights, folder / "transformer" / f"{STEMS[0]}.safetensors", metadata={"format": "pt"})
    if isinstance(parts.vae, VideoAutoencoder):
        names["vae"] = "AutoencoderKLOpenSora"
        config = read_json(folder / "vae" / "config.json")
        _write_json(folder / "vae" / "config.json", config | {"_class_name": names["vae"]})
    if parts.text_encoder is not None:
        names |= {"text_encoder": "PhiEncoderModel", "tokenizer": "CodeGenTokenizerFast"}
        text = folder / "text_encoder"
        weights = {f"model.{name}": value for name, value in read_weights(text).items()}
        for path in weight_files(text):
            path.unlink()
        save_file(weights, text / f"{STEMS[1]}.safetensors", metadata={"format": "pt"})
        _write_json(text / "config.json", read_json(text / "config.json") | {"architectures": ["PhiEncoderModel"]})
    return names


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
