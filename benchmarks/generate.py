"""How fast a model generates here, against the limit that its operations and this machine's matrix products set.

    python benchmarks/generate.py [--model digits] [--runs 5] [--json]

The limit is the transformer's floor in operations (`nova.models.flops`) over the speed of a large matrix product,
measured in the same process, device and precision. Times are medians; loading and the first run are not in them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from nova import NovaPipeline
from nova.models.flops import generation_flops

PROMPT = "a red 3 moves right"
MATRIX = 2048


def median_seconds(run: Callable[[], object], runs: int, device: torch.device) -> tuple[float, float]:
    """Median and spread (largest minus smallest) of `runs` timed runs, after one that is not timed."""
    run()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), max(seconds) - min(seconds)


def matrix_product_flops(device: torch.device, dtype: torch.dtype, runs: int) -> float:
    """Operations a second of a square matrix product of random numbers."""
    left, right = torch.randn(2, MATRIX, MATRIX, device=device).to(dtype)
    seconds, _ = median_seconds(lambda: left @ right, runs, device)
    return 2 * MATRIX**3 / seconds


def measure(model: str, runs: int, steps: int, diffusion_steps: int) -> dict[str, Any]:
    """All figures of one model on this machine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    pipe: Any = NovaPipeline.from_pretrained(model, dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": steps, "num_diffusion_steps": diffusion_steps, "generator": 0}

    latent, latent_spread = median_seconds(lambda: pipe(PROMPT, **options, output_type="latent"), runs, device)
    whole, whole_spread = median_seconds(lambda: pipe(PROMPT, **options, output_type="np"), runs, device)
    first, first_spread = median_seconds(lambda: next(pipe.stream(PROMPT, **options, output_type="np")), runs, device)
    frames = pipe(PROMPT, **options, output_type="np").frames.shape[1]
    floor = generation_flops(pipe.transformer.shape, steps=steps, diffusion_steps=diffusion_steps).total
    peak = matrix_product_flops(device, dtype, runs)
    return {
        "model": model,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "runs": runs,
        "frames": frames,
        "seconds_without_autoencoder": latent,
        "seconds_without_autoencoder_spread": latent_spread,
        "seconds": whole,
        "seconds_spread": whole_spread,
        "frames_per_second": frames / whole,
        "first_frame_seconds": first,
        "first_frame_seconds_spread": first_spread,
        "floor_gflop": floor / 1e9,
        "matrix_product_gflops": peak / 1e9,
        "limit_seconds": floor / peak,
        "times_the_limit": latent * peak / floor,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
    }


def main() -> None:
    """Measure and print, a line each or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--diffusion-steps", type=int, default=25)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.model, arguments.runs, arguments.steps, arguments.diffusion_steps)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<36} {value:.4g}" if isinstance(value, float) else f"{name:<36} {value}")


if __name__ == "__main__":
    main()
