"""DDPM: denoising with a discrete variance-preserving noise schedule (Ho et al., arXiv 2006.11239)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nova.diffusion.multistep import known_order, two_step
from nova.diffusion.process import SolverStep
from nova.errors import UsageError, nearest

SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "sample", "v_prediction")
VARIANCES = ("fixed_small", "fixed_large")
FIRST = 0.96
"""Where two-step solvers start, as a part of the training times: the published 25 steps start there, a little short of
where all signal is gone and an estimate of the noise says nothing of the sample."""


@dataclasses.dataclass(frozen=True)
class GaussianProcess:
    """`x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise` over `train_steps` discrete times.

    Field names and meanings follow the fields of a saved DDPM scheduler config.
    """

    train_steps: int = 1000
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    zero_terminal_snr: bool = False
    prediction: str = "epsilon"
    variance: str = "fixed_small"
    spacing: str = "leading"
    offset: int = 0
    order: int = 1
    """Of the solver: 1 is the published ancestral sampling, 2 takes two-step ones without fresh noise."""

    def __post_init__(self) -> None:
        for field, options in (("prediction", PREDICTIONS), ("variance", VARIANCES), ("spacing", SPACINGS)):
            value = getattr(self, field)
            if value not in options:
                raise UsageError(f"scheduler: {field} {value!r} is not supported{nearest(value, options)}")
        if self.beta_schedule not in _BETAS:
            found = self.beta_schedule
            raise UsageError(f"scheduler: beta_schedule {found!r} is not supported{nearest(found, _BETAS)}")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise UsageError(
                "scheduler: rescale_betas_zero_snr needs prediction_type sample or v_prediction, not epsilon"
            )

    def of_order(self, order: int) -> GaussianProcess:
        """The same process with a solver of that order."""
        return dataclasses.replace(self, order=known_order(order))

    @functools.cached_property
    def _abar(self) -> Float[Tensor, "t"]:
        """Cumulative signal power of every training time, formed in float32 as the published schedule was."""
        betas = _BETAS[self.beta_schedule](self)
        abar = (1 - betas).cumprod(0)
        if not self.zero_terminal_snr:
            return abar
        root = abar.sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        alphas = torch.cat([root[:1] ** 2, root[1:] ** 2 / root[:-1] ** 2])
        return alphas.cumprod(0)

    def table(self, steps: int, shift: float | None = None) -> tuple[SolverStep, ...]:
        """Ancestral sampling over `steps` times; one more normal is drawn at every time above 0.

        Of order 2: steps from time `FIRST` to the clean sample, without fresh noise.
        """
        if shift is not None:
            raise UsageError(f"flow_shift: {shift} given, but this model's diffusion is DDPM; leave flow_shift out")
        times = self._sampling_times(steps)
        abar = self._abar.double()
        if self.order == 2:
            return self._two_step(steps)
        rows = []
        for time, following in zip(times, [*times[1:], -1], strict=True):
            now, later = abar[time].item(), abar[following].item() if following >= 0 else 1.0
            alpha, beta = now / later, 1 - now / later
            from_clean = math.sqrt(later) * beta / (1 - now)
            from_sample = math.sqrt(alpha) * (1 - later) / (1 - now)
            clean_of_sample, clean_of_prediction = self._clean(now)
            variance = beta if self.variance == "fixed_large" else max((1 - later) / (1 - now) * beta, 1e-20)
            rows.append(
                SolverStep(
                    time=float(time),
                    sample=from_sample + from_clean * clean_of_sample,
                    prediction=from_clean * clean_of_prediction,
                    noise=math.sqrt(variance) if time > 0 else 0.0,
                    draws_noise=time > 0,
                )
            )
        return tuple(rows)

    def _two_step(self, steps: int) -> tuple[SolverStep, ...]:
        times = [round(self.train_steps * FIRST * (1 - step / steps)) for step in range(steps)]
        powers = [self._abar.double()[time].item() for time in times] + [1.0]
        levels = [(math.sqrt(power), math.sqrt(1 - power)) for power in powers]
        return two_step(self.prediction, [float(time) for time in times], levels)

    def _clean(self, abar: float) -> tuple[float, float]:
        """Factors of sample and prediction in the estimate of the clean sample."""
        signal, noise = math.sqrt(abar), math.sqrt(1 - abar)
        if self.prediction == "epsilon":
            return 1 / signal, -noise / signal
        return (0.0, 1.0) if self.prediction == "sample" else (signal, -noise)

    def _sampling_times(self, steps: int) -> list[int]:
        if not 1 <= steps <= self.train_steps:
            raise UsageError(f"num_diffusion_steps: {steps}; use 1 to {self.train_steps}")
        if self.spacing == "linspace":
            return np.linspace(0, self.train_steps - 1, steps).round().astype(int)[::-1].tolist()
        if self.spacing == "trailing":
            return (np.arange(self.train_steps, 0, -self.train_steps / steps).round().astype(int) - 1).tolist()
        stride = self.train_steps // steps
        return [index * stride + self.offset for index in reversed(range(steps))]

    def draw_indices(self, shape: Sequence[int], generator: torch.Generator) -> Int[Tensor, "..."]:
        """Uniform over all training times."""
        return torch.randint(0, self.train_steps, tuple(shape), generator=generator)

    def times(self, indices: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The index itself."""
        return indices.float()

    def add_noise(
        self, clean: Float[Tensor, "*shape p"], noise: Float[Tensor, "*shape p"], indices: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape p"]:
        """`sqrt(abar) clean + sqrt(1 - abar) noise`."""
        signal, spread = self._levels(indices, clean)
        return signal * clean + spread * noise

    def target(
        self, clean: Float[Tensor, "*shape p"], noise: Float[Tensor, "*shape p"], indices: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape p"]:
        """The noise, the clean token, or the velocity, as `prediction` says."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        signal, spread = self._levels(indices, clean)
        return signal * noise - spread * clean

    def _levels(self, indices: Int[Tensor, "*shape"], like: Tensor) -> tuple[Tensor, Tensor]:
        abar = self._abar.to(like)[indices].unsqueeze(-1)
        return abar.sqrt(), (1 - abar).sqrt()


def _cosine_betas(process: GaussianProcess) -> Float[Tensor, "t"]:
    def signal(part: float) -> float:
        return math.cos((part + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = process.train_steps
    return torch.tensor([min(1 - signal((i + 1) / steps) / signal(i / steps), 0.999) for i in range(steps)])


def _linear_betas(process: GaussianProcess) -> Float[Tensor, "t"]:
    return torch.linspace(process.beta_start, process.beta_end, process.train_steps)


def _scaled_linear_betas(process: GaussianProcess) -> Float[Tensor, "t"]:
    return torch.linspace(process.beta_start**0.5, process.beta_end**0.5, process.train_steps) ** 2


def _sigmoid_betas(process: GaussianProcess) -> Float[Tensor, "t"]:
    spread = process.beta_end - process.beta_start
    return torch.linspace(-6, 6, process.train_steps).sigmoid() * spread + process.beta_start


_BETAS = {
    "squaredcos_cap_v2": _cosine_betas,
    "linear": _linear_betas,
    "scaled_linear": _scaled_linear_betas,
    "sigmoid": _sigmoid_betas,
}
