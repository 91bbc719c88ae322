"""The published code, imported from a folder that the user names.

None of that code is here. Its models get our weights under their published names, and its schedulers our configs.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers.pipelines.pipeline_utils  # noqa: F401  (it looks for optional packages: before any stand-in)
from torch import Tensor

from nova.autoencoders.video import VideoAutoencoder
from nova.checkpoints.published import write_config, write_weights
from nova.errors import UsageError
from nova.models.config import NovaConfig

PACKAGE = "diffnext"
_NOT_NEEDED = ("wandb", "omegaconf")
"""Packages that its modules import but that nothing measured here has a use for."""
_FILES = {"AutoencoderKLOpenSora": "autoencoder_kl_opensora", "AutoencoderKL": "autoencoder_kl"}


def check_folder(folder: Path) -> None:
    """Raise UsageError where `folder` does not hold the published code."""
    if not (folder / PACKAGE / "__init__.py").is_file():
        raise UsageError(f"--peer: {folder} has no package {PACKAGE!r}; name the folder of the published code")


class PublishedCode:
    """Modules of the published code, and what can be built from them."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError where `folder` does not hold them or a package that they need is missing."""
        check_folder(folder)
        self._folder = folder
        self.transformers = self.module("models.transformers.transformer_nova")
        self._flow = self.module("schedulers.scheduling_cfm")
        self._ddpm = self.module("schedulers.scheduling_ddpm")

    def module(self, name: str) -> Any:
        """One of its modules, by its path within the package."""
        with _importing_from(self._folder):
            try:
                return importlib.import_module(f"{PACKAGE}.{name}")
            except ImportError as error:
                raise UsageError(
                    f"--peer: {self._folder} cannot be imported ({error}); install what it needs"
                ) from None

    def network(self, shape: NovaConfig, weights: Mapping[str, Tensor]) -> Any:
        """Its transformer of `shape`, with weights that have our names."""
        config = {name: value for name, value in write_config(shape).items() if not name.startswith("_")}
        temporal, spatial, denoiser = config["arch"]
        depth = shape.spatial_encoder_layers + shape.spatial_decoder_layers
        sizes = {"embed_dim": shape.width, "num_heads": shape.heads}
        code = self.transformers
        code.VIDEO_ENCODERS.register(temporal, code.video_encoder, depth=shape.temporal_layers, **sizes)
        code.IMAGE_ENCODERS.register(spatial, code.image_encoder, depth=depth, **sizes)
        code.IMAGE_DECODERS.register(
            denoiser, code.image_decoder, depth=shape.denoiser_blocks, embed_dim=shape.denoiser_width
        )
        network = code.NOVATransformer3DModel(**config)
        network.load_state_dict(write_weights(weights, shape))
        return network

    def autoencoder(self, ours: Any) -> Any:
        """Its autoencoder with the config and the weights of one of ours."""
        video = isinstance(ours, VideoAutoencoder)
        kind = "AutoencoderKLOpenSora" if video else "AutoencoderKL"
        made = getattr(self.module(f"models.autoencoders.{_FILES[kind]}"), kind)
        known = inspect.signature(made.__init__).parameters
        autoencoder = made(**{name: value for name, value in ours.config.items() if name in known})
        autoencoder.load_state_dict(ours.state_dict())
        return autoencoder

    def scheduler(self, config: Mapping[str, Any]) -> Any:
        """Its scheduler of a saved config."""
        made = {"DDPMScheduler": self._ddpm, "FlowMatchEulerDiscreteScheduler": self._flow}[config["_class_name"]]
        return getattr(made, config["_class_name"]).from_config(dict(config))


class _Absent(types.ModuleType):
    """Stands for a package that is not installed; its names are empty classes."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Modules are found in `folder` first; packages that are only named there may be missing. Writes nothing there."""
    missing = [name for name in _NOT_NEEDED if importlib.util.find_spec(name) is None]
    cached, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    sys.modules.update({name: _Absent(name) for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = cached
