"""The published training step, run from a folder that holds the published code (`published_code`).

What runs is its own pipeline, trainer and averaged model; it is told our draws in place of its random numbers.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator
from published_code import PublishedCode
from safetensors.torch import load_file
from torch import Tensor
from train_sides import Setting, Side

from nova.training.config import OptimizerConfig
from nova.training.draws import DrawRules
from nova.training.transformer import LatentBatch

_LOSSES = {"loss": "loss", "loss_t2i": "first", "loss_i2i": "later"}
EMA_DECAY = 0.98


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
        code = PublishedCode(folder)
        self.engine = code.module("engine.train_engine")
        self.embeddings = code.module("models.embeddings")
        self.learning_rates = code.module("engine.lr_scheduler")
        images = code.module("pipelines.nova.pipeline_train_t2i").NOVATrainT2IPipeline
        video = code.module("pipelines.nova.pipeline_train_t2v").NOVATrainT2VPipeline
        super().__init__(setting)
        case = self.case
        network = code.network(case.shape, load_file(setting.weights)).to(self.device)
        kind = video if case.shape.is_video else images  # text encoder and autoencoder are left out
        self.pipe = kind(transformer=network, scheduler=code.scheduler(case.scheduler.config))
        self.pipe.configure_model(types.SimpleNamespace(model={"loss_repeat": DrawRules().repeats}))

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
        options, engine = OptimizerConfig(), self.engine
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
        trainer.scheduler = self.learning_rates.ConstantLR(lr_max=options.learning_rate)
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
            mock.patch.object(self.embeddings, "stats", types.SimpleNamespace(truncnorm=_always(ratio))),
            mock.patch.object(scheduler, "sample_timesteps", _always(given.indices)),
        ):
            yield


def _always(value: object) -> Callable[..., object]:
    return lambda *_, **__: value
