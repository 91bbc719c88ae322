"""What a run is, in one frozen value: the fields every run has, and those of each kind of run.

A recipe returns one of these; the resolved value is stored as `config.json` in the run folder and read back
from there. Unknown fields are errors.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Recompute = Literal["nothing", "activations", "cheap", "blocks"]


class Config(BaseModel):
    """Base of all configurations: immutable, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OptimizerConfig(Config):
    """AdamW, its learning rate over the run, and the average of the weights.

    The rate rises linearly over `warmup_steps`. `constant` then holds it; `cosine` lets it fall to `final_fraction`
    of itself over the last `decay_fraction` of the run, in stairs of `decay_every` steps; `multistep` multiplies it by
    `final_fraction` at each of `milestones`, which are shares of the run. The curve is `schedule_steps` long, or as
    long as the run where None; after its end the rate stays.
    """

    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["constant", "cosine", "multistep"] = "constant"
    schedule_steps: int | None = Field(default=None, ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    decay_fraction: float = Field(default=1.0, gt=0, le=1)
    decay_every: int = Field(default=1, ge=1)
    milestones: tuple[float, ...] = ()
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: float = Field(default=0.02, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    ema_every: int = Field(default=1, ge=1)


class WorldConfig(Config):
    """The moving-digits world a run learns from, as in `nova.data.moving_digits.World`.

    Side in pixels, frames of a clip, seed of its samples, handwriting samples of each value (None for all), and the
    grid of pixels on which digits start (0 for anywhere).
    """

    size: int = Field(default=64, ge=16)
    frames: int = Field(default=17, ge=1)
    seed: int = 0
    hands: int | None = Field(default=None, ge=1)
    grid: int = Field(default=0, ge=0)


class ObserveConfig(Config):
    """What a transformer's run shows of its averaged weights, after every `every` steps and the last; 0 is never.

    A sample of each of `prompts`, from the same noise every time, in `steps` autoregressive and `diffusion_steps`
    denoising steps under `guidance`; a class-conditional model's prompts are numbers of classes. And the loss over
    `held_out` samples that training never sees: of a folder of latents, these are taken out.
    """

    every: int = Field(default=0, ge=0)
    prompts: tuple[str, ...] = ()
    steps: int = Field(default=64, ge=1)
    diffusion_steps: int = Field(default=25, ge=1)
    guidance: float = Field(default=5.0, ge=0)
    held_out: int = Field(default=0, ge=0)


class RunConfig(Config):
    """What every run has.

    `steps` optimizer steps of `batch_size` samples, over all devices; everything random follows from `seed`, the step
    and the sample's place in the batch. A device takes its share of the batch in parts of `micro_batch` samples, or at
    once where None; neither this nor the number of devices or of loading `workers` changes the numbers of a run beyond
    rounding. A worker that is silent for `worker_timeout` seconds counts as stuck.

    `precision` is that of the matrix products; weights, their average and the optimizer's moments are float32.
    `sharding` says how devices share a run: `none` keeps a copy of everything on each (DDP), `full` a part (FSDP2).
    `recompute` trades time for memory: `blocks` keeps only the inputs of transformer blocks, and of the denoising MLP
    in each repeat of the loss, for the backward pass, `cheap` also the results of matrix products and attention,
    `activations` all but what activation functions make. `compile` fuses what is in these.
    Modules whose names match a pattern of `freeze` (such as `temporal.*`) are not trained.

    A metrics line every `log_every` steps, a checkpoint every `checkpoint_every`, of which the newest
    `keep_checkpoints` stay. After `max_skipped` steps in a row without a finite loss and gradient the run stops.
    Metrics always go to the run folder, and to each of `trackers` too, under the name `project` where these sort runs
    by one.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    seed: int = 0
    workers: int = Field(default=0, ge=0)
    worker_timeout: float = Field(default=300.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    sharding: Literal["none", "full"] = "none"
    recompute: Recompute = "nothing"
    compile: bool = False
    freeze: tuple[str, ...] = ()
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=10, ge=1)
    keep_checkpoints: int = Field(default=2, ge=2)
    max_skipped: int = Field(default=10, ge=1)
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    project: str | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
