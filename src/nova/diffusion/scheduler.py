"""A saved scheduler config, read as the processes that it names.

The published folders keep diffusers' scheduler configs. We read their meaning and keep the file; nothing here has
state, so one scheduler can serve any number of requests.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nova.diffusion.flow import FlowProcess
from nova.diffusion.gaussian import GaussianProcess
from nova.diffusion.process import Process
from nova.errors import CheckpointError, UsageError, nearest

FILE = "scheduler_config.json"


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """The processes of a model, for sampling and for training, with the config that they came from."""

    config: Mapping[str, Any]
    sampling: Process
    training: Process

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Scheduler:
        """`_sample_class_name` and `_noise_class_name`, where present, take precedence over `_class_name`."""
        name = config.get("_class_name")
        return cls(
            config=dict(config),
            sampling=_process(config.get("_sample_class_name") or name, config),
            training=_process(config.get("_noise_class_name") or name, config),
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Scheduler:
        """Read `scheduler_config.json` in `folder`."""
        path = Path(folder) / FILE
        try:
            return cls.from_config(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: missing; a model folder needs its scheduler config") from None
        except (ValueError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{path}: {error}; the scheduler config cannot be used") from None

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write `scheduler_config.json` into `folder`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / FILE).write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def flow_scheduler(shift: float = 1.0) -> Scheduler:
    """Flow matching for training and sampling."""
    fields = {"num_train_timesteps": 1000, "shift": shift, "use_dynamic_shifting": False}
    return Scheduler.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", **fields})


def ddpm_scheduler() -> Scheduler:
    """DDPM with the cosine schedule and noise prediction, as in the published video models."""
    fields = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "epsilon"}
    more = {"clip_sample": False, "variance_type": "fixed_small", "timestep_spacing": "leading", "steps_offset": 0}
    return Scheduler.from_config({"_class_name": "DDPMScheduler", **fields, **more})


def _gaussian(config: Mapping[str, Any]) -> Process:
    for field in ("clip_sample", "thresholding"):
        # diffusers clips by default, and clipping is no linear step; the published configs switch it off.
        if config.get(field, field == "clip_sample"):
            raise UsageError(f"{field}: true; continuous latents must not be clipped, set it to false")
    if config.get("trained_betas") is not None:
        raise UsageError("trained_betas: a list of betas is not supported; use a named beta_schedule")
    return GaussianProcess(
        train_steps=config.get("num_train_timesteps", 1000),
        beta_schedule=config.get("beta_schedule", "linear"),
        beta_start=config.get("beta_start", 0.0001),
        beta_end=config.get("beta_end", 0.02),
        zero_terminal_snr=config.get("rescale_betas_zero_snr", False),
        prediction=config.get("prediction_type", "epsilon"),
        variance=config.get("variance_type", "fixed_small"),
        spacing=config.get("timestep_spacing", "leading"),
        offset=config.get("steps_offset", 0),
    )


def _flow(config: Mapping[str, Any]) -> Process:
    if config.get("use_dynamic_shifting"):
        raise UsageError("use_dynamic_shifting: true; only a fixed shift is supported, set it to false")
    return FlowProcess(train_steps=config.get("num_train_timesteps", 1000), shift=config.get("shift", 1.0))


_PROCESSES = {"DDPMScheduler": _gaussian, "FlowMatchEulerDiscreteScheduler": _flow}


def _process(name: object, config: Mapping[str, Any]) -> Process:
    if name not in _PROCESSES:
        raise UsageError(f"_class_name: {name!r} is not a known scheduler{nearest(str(name), _PROCESSES)}")
    return _PROCESSES[str(name)](config)
