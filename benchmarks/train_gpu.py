"""The training step on a GPU: samples a second, memory, and how much of the device's speed it uses.

    python benchmarks/train_gpu.py [--budget 170] [--json FILE] [--profile]

First the speed of a large product of random matrices, and of attention. Then steps of 0.6B models, text to image at
512 pixels and text to video of 33x480x768, on random latents, text features and draws: without and with compiled
blocks, in batches of several sizes, keeping everything for the backward pass or not. Utilisation is the floor of the
function in operations (`nova.models.flops`; a step is three forward passes) per second, over the speed of the product.

A case that runs out of memory or time is reported and the next one begins; what is left when the budget is spent is
skipped. Every result is printed when it is there. The step is the training loop's own, `nova.training.step`.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import json
import platform
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile
from train_cases import Case, batch, case, mask_ratio

from nova.machine import device_name, forget_peak, matrix_product_flops, memory_peak, seconds, wait
from nova.models.flops import training_flops
from nova.models.nova import NovaTransformer
from nova.training.cluster import Cluster
from nova.training.config import OptimizerConfig, RunConfig
from nova.training.state import TrainState
from nova.training.step import differentiate, prepare, update
from nova.training.transformer import LatentBatch, TransformerObjective

BATCHES = 4
"""Different batches, of different shares of unknown tokens."""
KERNELS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")

Recompute = Literal["nothing", "cheap", "blocks"]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One measurement: a case, samples a step, and how the step is run."""

    case: str
    batch: int
    compile: bool = False
    recompute: Recompute = "nothing"

    def __str__(self) -> str:
        return f"{self.case:<11}{self.batch:>5}  {'compiled' if self.compile else 'eager':<9}{self.recompute:<8}"


VARIANTS = (
    Variant("0.6B-video", 8, compile=True),
    Variant("0.6B-video", 4),
    Variant("0.6B-512", 32),
    Variant("0.6B-512", 64, compile=True),
    Variant("0.6B-video", 16, compile=True, recompute="blocks"),
    Variant("0.6B-512", 128, compile=True, recompute="blocks"),
    Variant("0.6B-video", 4, compile=True),
    Variant("0.6B-512", 32, compile=True),
)
"""What is most worth knowing comes first: the budget may end."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What steps of a variant took. Speeds are operations a second; the loss shows that it computed something."""

    step: float
    """Mean seconds of a step."""
    samples_a_second: float
    floor_speed: float
    utilisation: float
    """Of the speed of the matrix product."""
    peak_bytes: int | None
    first_step: float
    """Seconds, compilation included."""
    loss: float

    def __str__(self) -> str:
        memory = "" if self.peak_bytes is None else f"{self.peak_bytes / 1e9:.1f} GB"
        return (
            f"{self.step:8.3f} s {self.samples_a_second:9.2f} samples/s {self.floor_speed / 1e12:7.1f} TFLOP/s"
            f"{self.utilisation:8.1%} {memory:>9}   first step {self.first_step:.1f} s   loss {self.loss:.4f}"
        )


class Training:
    """A model that takes steps on given batches, as the training loop takes them."""

    def __init__(self, chosen: Case, variant: Variant, device: torch.device) -> None:
        self.config = RunConfig(
            steps=10**6,
            batch_size=chosen.batch,
            compile=variant.compile,
            recompute=variant.recompute,
            optimizer=OptimizerConfig(warmup_steps=100),
        )
        self.cluster = Cluster(device=device)
        torch.manual_seed(0)
        with device:
            model = NovaTransformer(chosen.shape)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(chosen.frozen))
        objective = TransformerObjective(model, chosen.scheduler.training, None, 1.0, 1.0)
        self.network = prepare(objective, self.config, self.cluster).train()
        self.state = TrainState.start(model, self.config.optimizer)

    def step(self, given: Iterator[LatentBatch]) -> float:
        """The loss of a step on the next batch."""
        found = differentiate(self.network, given, 1, self.config, self.cluster)
        if not found.finite:
            raise ValueError(f"the loss is {found.losses['loss']}, its gradient's norm {found.norm}")
        update(self.state, found, 1e-4, self.config)
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        return found.losses["loss"]


def measure(variant: Variant, device: torch.device, speed: float, steps: int, table: bool) -> Measured:
    """Time steps of a variant; all its batches are seen before. `table` prints what the device did in one step."""
    chosen = case(variant.case, variant.batch)
    made = [batch(chosen, number) for number in range(BATCHES)]
    floors = [
        3 * chosen.batch * training_flops(chosen.shape, mask_ratio=mask_ratio(one, chosen.shape)).total for one in made
    ]
    training, given = Training(chosen, variant, device), itertools.cycle(made)
    forget_peak(device)
    losses: list[float] = []

    def run(count: int) -> None:
        losses.extend(training.step(given) for _ in range(count))

    first = seconds(lambda: run(1), device)
    run(BATCHES - 1)
    if table:
        print_profile(lambda: run(BATCHES), device)
    rounds = max(1, round(steps / BATCHES))
    taken = seconds(lambda: run(rounds * BATCHES), device) / rounds
    floor = sum(floors)
    return Measured(
        step=taken / BATCHES,
        samples_a_second=chosen.batch * BATCHES / taken,
        floor_speed=floor / taken,
        utilisation=floor / taken / speed,
        peak_bytes=memory_peak(device),
        first_step=first,
        loss=losses[-1],
    )


def print_profile(act: Any, device: torch.device) -> None:
    """What `device` spends the time of `act` on, kernel by kernel."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as found:
        act()
        wait(device)
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60), flush=True)


def attention_speeds(device: torch.device) -> dict[str, float]:
    """Operations a second of attention over 1800 tokens, forward and backward pass, by each kernel that can do it."""
    shape = (36, 16, 1800, 64) if device.type == "cuda" else (1, 2, 180, 64)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    query, key, value = (torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    operations = 3.5 * 4 * shape[0] * shape[1] * shape[2] ** 2 * shape[3]
    kernels: dict[str, AbstractContextManager[Any]] = {
        name: sdpa_kernel(SDPBackend.__members__[name]) for name in KERNELS
    }
    kernels["chosen by torch"] = nullcontext()
    found = {}

    def run() -> None:
        out = scaled_dot_product_attention(query, key, value)
        out.backward(out.detach())

    for name, kernel in kernels.items():
        try:
            with warnings.catch_warnings(action="ignore"), kernel:
                found[name] = operations / min(seconds(run, device) for _ in range(6))
        except RuntimeError:
            continue  # this one doesn't exist here
    return found


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block when it has taken so long; 0 or less is at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {seconds:.0f} s")

    if seconds <= 0:
        stop(0, None)
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(
    variant: Variant, device: torch.device, speed: float, given: argparse.Namespace, left: float
) -> dict[str, Any]:
    """The figures of a variant, or why there are none; printed at once."""
    result = dataclasses.asdict(variant)
    try:
        with time_limit(min(given.limit, left)):
            found = measure(variant, device, speed, given.steps, given.profile)
        result |= dataclasses.asdict(found)
        print(f"{variant}{found}", flush=True)
    except Exception as error:  # also what compilation makes of running out of time
        reason = str(error).strip().splitlines() or [""]
        result["error"] = f"{type(error).__name__}: {reason[0][:300]}"
        print(f"{variant}{result['error']}", flush=True)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return result


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--case", help="only this one, in batches of --batch")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--eager", action="store_true", help="with --case: don't compile")
    parser.add_argument("--recompute", choices=("nothing", "cheap", "blocks"), default="nothing")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a variant, a multiple of 4")
    parser.add_argument("--limit", type=float, default=100, help="seconds of one variant")
    parser.add_argument("--budget", type=float, default=170, help="seconds of everything")
    parser.add_argument("--profile", action="store_true", help="print the kernels of a step")
    parser.add_argument("--json", type=Path, help="file to write all figures to, after every variant")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write as JSON."""
    start, given = time.perf_counter(), parse(arguments)
    device = torch.device(given.device)
    speed = matrix_product_flops(device, torch.bfloat16)
    found: dict[str, Any] = {
        "device": device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "matrix_product": speed,
        "variants": [],
    }
    print(f"{found['device']}, torch {found['torch']}: bfloat16 matrix product {speed / 1e12:.1f} TFLOP/s", flush=True)
    found["attention"] = attention_speeds(device)
    speeds = ", ".join(f"{name} {value / 1e12:.0f}" for name, value in found["attention"].items())
    print(f"attention with its backward pass, TFLOP/s: {speeds}", flush=True)
    variants: Sequence[Variant] = VARIANTS
    if given.case is not None:
        variants = [Variant(given.case, size, not given.eager, given.recompute) for size in given.batch]
    for before, variant in zip((None, *variants), variants, strict=False):
        if before is None or (before.case, before.recompute) != (variant.case, variant.recompute):
            torch._dynamo.reset()  # as in a run of its own
        left = given.budget - (time.perf_counter() - start)
        found["variants"].append(attempt(variant, device, speed, given, left))
        if given.json is not None:
            given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
