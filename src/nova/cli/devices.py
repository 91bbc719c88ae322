"""Which device, precision and number of threads a run uses, and the pipeline on it."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nova.cli.ranks import ALONE, Share
from nova.cli.sidecar import Environment
from nova.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from nova.pipeline import NovaPipeline


def choose_environment(
    device: str, dtype: str, threads: int | None, offload: bool, share: Share = ALONE, compiled: bool = False
) -> Environment:
    """The environment for the flags: `auto` takes a GPU if there is one, and bfloat16 on it, else float32.

    `threads` sets the CPU threads, on which the last bits of a sum may depend; None leaves them. Of several processes
    on a machine each takes the GPU of its number.
    """
    chosen = _device(_own(device, share))
    if offload and chosen.type == "cpu":
        raise UsageError("--offload: needs a GPU that parts of the model are brought to; leave it out on a CPU")
    if threads is not None:
        torch.set_num_threads(threads)
    if dtype == "auto":
        dtype = "float32" if chosen.type != "cuda" else "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine()
    return Environment(
        device=str(chosen), device_name=name, dtype=dtype, threads=torch.get_num_threads(), compiled=compiled
    )


def load_pipeline(folder: Path, environment: Environment, offload: bool) -> NovaPipeline:
    """The pipeline of a model folder, on the environment's device and in its precision."""
    from nova.pipeline import NovaPipeline

    pipe: Any = NovaPipeline.from_pretrained(folder, dtype=getattr(torch, environment.dtype))
    if offload:
        pipe.enable_model_cpu_offload(device=environment.device)
        return pipe
    return pipe.to(environment.device)


def hasten(pipe: NovaPipeline, environment: Environment) -> None:
    """Make a pipeline generate faster, once it has all its weights: it is good for nothing else then."""
    if environment.compiled:
        pipe.compile()
    else:
        pipe.pack()


def _own(name: str, share: Share) -> str:
    """The device of this process, where it is one of several."""
    if share.size == 1 or name in ("cpu", "mps"):
        return name
    if name.startswith("cuda:"):
        raise UsageError(f"--device: {name} for each of {share.size} processes; give cuda, of which each takes its own")
    return f"cuda:{share.local}" if name == "cuda" or torch.cuda.is_available() else name


def _device(name: str) -> torch.device:
    """The device of `--device`, checked to be there."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", name):
        raise UsageError(f"--device: {name!r}; give auto, cpu, cuda, cuda:N or mps")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= cuda:
        raise ResourceError(f"--device: {name} is not here ({cuda} CUDA devices found); use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ResourceError("--device: mps is not here; use --device cpu")
    return device
