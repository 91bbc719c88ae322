"""The published training step, run from a folder that holds the published code.

None of that code is here: it is imported from where the user says, given our weights under their published names, and
told our draws in place of its random numbers. What runs is its own pipeline, trainer and averaged model.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers.pipelines.pipeline_utils  # noqa: F401  (it looks for optional packages: before any stand-in)
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor
from train_sides import Setting, Side

from nova.checkpoints.published import write_config, write_weights
from nova.errors import UsageError
from nova.models.config import NovaConfig
from nova.training.config import OptimizerConfig
from nova.training.draws import DrawRules
from nova.training.transformer import LatentBatch

PACKAGE = "diffnext"
_NOT_NEEDED = ("wandb", "omegaconf")
"""Packages that its modules import but that a training step has no use for."""
_LOSSES = {"loss": "loss", "loss_t2i": "first", "loss_i2i": "later"}
EMA_DECAY = 0.98


def check_folder(folder: Path) -> None:
    """Raise UsageError where `folder` does not hold the published code."""
    if not (folder / PACKAGE / "__init__.py").is_file():
        raise UsageError(f"--peer: {folder} has no package {PACKAGE!r}; name the folder of the published code")


class PublishedCode:
    """The modules of the published code that training needs."""

    def __init__(self, folder: Path) -> None:
        """Import them. Raises UsageError where `folder` does not hold them or a package that they need is missing."""
        check_folder(folder)
        with _importing_from(folder):
            try:
                self.transformers = importlib.import_module(f"{PACKAGE}.models.transformers.transformer_nova")
                self.embeddings = importlib.import_module(f"{PACKAGE}.models.embeddings")
                self.trainer = importlib.import_module(f"{PACKAGE}.engine.train_engine")
                self.learning_rates = importlib.import_module(f"{PACKAGE}.engine.lr_scheduler")
                self.flow = importlib.import_module(f"{PACKAGE}.schedulers.scheduling_cfm")
                self.ddpm = importlib.import_module(f"{PACKAGE}.schedulers.scheduling_ddpm")
                self.images = importlib.import_module(f"{PACKAGE}.pipelines.nova.pipeline_train_t2i")
                self.video = importlib.import_module(f"{PACKAGE}.pipelines.nova.pipeline_train_t2v")
            except ImportError as error:
                raise UsageError(f"--peer: {folder} cannot be imported ({error}); install what it needs") from None

    def network(self, shape: NovaConfig, weights: Path) -> Any:
        """Its transformer of `shape`, with the weights that the file holds under our names."""
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
        network.load_state_dict(write_weights(load_file(weights), shape))
        return network

    def scheduler(self, config: dict[str, Any]) -> Any:
        """Its scheduler of a saved config."""
        made = {"DDPMScheduler": self.ddpm, "FlowMatchEulerDiscreteScheduler": self.flow}[config["_class_name"]]
        return getattr(made, config["_class_name"]).from_config(config)

    def pipeline(self, network: Any, scheduler: Any, video: bool) -> Any:
        """Its training pipeline, ready to train; the text encoder and autoencoder are left out."""
        kind = self.video.NOVATrainT2VPipeline if video else self.images.NOVATrainT2IPipeline
        pipeline = kind(transformer=network, scheduler=scheduler)
        pipeline.configure_model(types.SimpleNamespace(model={"loss_repeat": DrawRules().repeats}))
        return pipeline


@dataclasses.dataclass(frozen=True)
class Told:
    """A batch as the published dataloader would hand it over, text encoded, and our draws as its random numbers."""

    latents: Tensor
    rows: Tensor
    motion: Tensor | None
    frame_rate: Tensor | None
    scores: Tensor
    """Numbers of which the lowest are those of the known tokens."""
    mask_ratio: float
    indices: Tensor
    """Diffusion indices of all tokens; those of known ones have no weight in its loss."""
    noise: Tensor

    @classmethod
    def of(cls, made: LatentBatch, patch: int) -> Told:
        """What a batch of ours is to the published code."""
        draws, (_, _, _, height, width) = made.draws, made.latents.shape
        frames, count = made.latents.shape[0] * made.latents.shape[2], height * width // patch**2
        repeats, unknown, numbers = draws.noise.shape
        scores = torch.zeros(frames * count, device=draws.noise.device)
        scores[draws.unknown] = 1
        indices = torch.zeros(repeats, frames * count, dtype=torch.long, device=scores.device)
        indices[:, draws.unknown] = draws.indices
        noise = torch.randn(repeats, frames * count, numbers, device=scores.device)
        noise[:, draws.unknown] = draws.noise
        assert made.condition is not None  # the cases have encoded text
        return cls(
            made.latents,
            made.condition,
            None if made.motion is None else made.motion.cpu(),
            None if made.frame_rate is None else made.frame_rate.cpu(),
            scores.view(frames, count, 1),
            unknown / (frames * count),
            indices.view(repeats * frames, count),
            noise.view(repeats * frames, count, numbers),
        )

    def inputs(self) -> dict[str, Any]:
        """What its model takes. It empties the dictionary."""
        inputs: dict[str, Any] = {"x": self.latents, "prompt": self.rows}
        return inputs if self.motion is None else inputs | {"motion_flow": self.motion, "fps": self.frame_rate}


class Published(Side[Told]):
    """The published trainer's step: loss, backward pass, AdamW; it does not clip."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.code = PublishedCode(folder)
        super().__init__(setting)
        case = self.case
        network = self.code.network(case.shape, setting.weights).to(self.device)
        self.pipe = self.code.pipeline(network, self.code.scheduler(dict(case.scheduler.config)), case.shape.is_video)

    def ready(self, made: LatentBatch) -> Told:
        return Told.of(made, self.case.shape.patch)

    def losses(self, given: Told) -> dict[str, Tensor]:
        with self._told(given):
            found = self.pipe.model(given.inputs())
        return {_LOSSES[name]: loss for name, loss in found.items()}

    def gradient_norms(self) -> dict[str, float]:
        parameters = self.pipe.model.named_parameters()
        norms = {name: float(one.grad.norm()) for name, one in parameters if one.grad is not None}
        self.pipe.model.zero_grad(set_to_none=True)
        return norms

    def begin(self) -> None:
        options, engine = OptimizerConfig(), self.code.trainer
        trainer = engine.Trainer.__new__(engine.Trainer)  # its constructor reads files and asks for loggers
        trainer.accelerator = Accelerator(
            cpu=self.device.type == "cpu", mixed_precision="bf16" if self.setting.precision == "bfloat16" else "no"
        )
        trainer.ema = engine.ModelEMA(self.pipe.model, decay=EMA_DECAY, device=self.device.type)
        optimizer = torch.optim.AdamW(
            engine.engine_utils.get_param_groups(self.pipe.model),
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
            fused=True,
        )
        trainer.model, trainer.optimizer = trainer.accelerator.prepare(self.pipe.model, optimizer)
        trainer.scheduler = self.code.learning_rates.ConstantLR(lr_max=options.learning_rate)
        self.trainer = trainer

    def train(self, given: Told) -> float:
        self.trainer.train_dataloader = types.SimpleNamespace(next=_always([given.inputs()]))
        with self._told(given):
            return sum(self.trainer.run_step()["metrics"].values())

    def average(self) -> None:
        self.trainer.ema.update(self.trainer.model)

    @contextmanager
    def _told(self, given: Told) -> Iterator[None]:
        """Whatever it draws is what it is told."""
        ratio = types.SimpleNamespace(rvs=_always([given.mask_ratio]))
        scheduler = self.pipe.model.noise_scheduler
        with (
            mock.patch.object(torch, "rand", _always(given.scores)),
            mock.patch.object(torch, "randn", _always(given.noise)),
            mock.patch.object(self.code.embeddings, "stats", types.SimpleNamespace(truncnorm=_always(ratio))),
            mock.patch.object(scheduler, "sample_timesteps", _always(given.indices)),
        ):
            yield


def _always(value: object) -> Callable[..., object]:
    return lambda *_, **__: value


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
