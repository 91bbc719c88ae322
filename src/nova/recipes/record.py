"""A run folder explains itself: run.json says what its numbers came from, README.md what to do with it.

Each start of a run adds what it ran on. Where that differs from the start before in anything that decides the last
bits of a number, the user is told that the run goes on, but not to the bit.
"""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nova
from nova.checkpoints.folder import read_json
from nova.errors import CheckpointError
from nova.files import json_bytes, replace_durably
from nova.recipes.parts import MODEL
from nova.recipes.settle import INPUTS
from nova.training.checkpoint import checkpoints
from nova.training.cluster import Cluster
from nova.training.config import RunConfig
from nova.training.redact import redacted
from nova.training.train import CHECKPOINTS
from nova.training.transformer import TransformerRun

RECORD, PAGE = "run.json", "README.md"
_DECISIVE = ("nova", "commit", "changed", "torch", "cuda", "device", "threads", "processes")
"""What the last bits of a run's numbers may depend on, beside its configuration."""
_GIT_SECONDS = 10


@dataclass(frozen=True)
class Start:
    """One start of a run, as run.json keeps it.

    step: steps done before.  commit, changed: of the checkout that the code is in, if it is in one, and whether files
    differ from that commit.  device: of the main process.  threads: of each process, for work on its CPU.
    """

    started: str
    step: int
    command: str
    host: str
    nova: str
    commit: str | None
    changed: bool | None
    python: str
    torch: str
    cuda: str | None
    device: str
    threads: int
    processes: int

    @classmethod
    def now(cls, step: int, cluster: Cluster) -> Start:
        """What is true of this process."""
        commit = _git("rev-parse", "HEAD")
        return cls(
            started=datetime.now(UTC).isoformat("T", "seconds"),
            step=step,
            command=redacted(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
            host=platform.node(),
            nova=nova.__version__,
            commit=commit,
            changed=None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
            python=platform.python_version(),
            torch=torch.__version__,
            cuda=torch.version.cuda,
            device=_device(cluster.device),
            threads=torch.get_num_threads(),
            processes=cluster.size,
        )


def record_start(config: RunConfig, folder: Path, model: nn.Module, cluster: Cluster) -> str | None:
    """Add this start to `folder`/run.json and write its README.md; for the main process alone.

    Returns a line for the user where the run goes on, but cannot be promised to go on bit for bit.
    """
    step = max((step for step, _ in checkpoints(folder / CHECKPOINTS)), default=0)
    start = asdict(Start.now(step, cluster))
    before = _starts(folder / RECORD)
    record = {
        "kind": config.model_dump()["kind"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "inputs": read_json(folder / INPUTS) if (folder / INPUTS).exists() else {},
        "starts": [*before, start],
    }
    replace_durably(folder / RECORD, json_bytes(record))
    replace_durably(folder / PAGE, _page(config, folder, record).encode())
    if not step or not before:
        return None
    changes = [
        f"{name} {before[-1].get(name)} -> {start[name]}" for name in _DECISIVE if before[-1].get(name) != start[name]
    ]
    if not changes:
        return None
    return f"{folder}: goes on, but not to the bit as it would have before ({', '.join(changes)})"


def _starts(file: Path) -> list[dict[str, Any]]:
    """The starts so far. A record is for reading only: one that somebody has spoilt is begun anew."""
    try:
        found = read_json(file).get("starts", [])
    except CheckpointError:
        return []
    return [start for start in found if isinstance(start, dict)]


def _page(config: RunConfig, folder: Path, record: dict[str, Any]) -> str:
    latest = record["starts"][-1]
    trained = record["trained"] / 1e6
    lines = [
        f"# A run of `nova train`: {record['kind']}",
        "",
        f"{record['parameters'] / 1e6:.2f} million parameters, of which {trained:.2f} are trained, "
        f"for {config.steps} steps of {config.batch_size} samples.",
        "",
        "Go on where it was stopped:",
        "",
        f"    {latest['command']}",
        "",
        "See its curves:",
        "",
        f"    nova curves {shlex.quote(str(folder))}",
        f"    tensorboard --logdir {shlex.quote(str(folder))}",
        "",
    ]
    if isinstance(config, TransformerRun):
        model = shlex.quote(str(folder / MODEL))
        what = "--class-label 0" if config.model.classes is not None else shlex.quote(_first_prompt(config))
        lines += ["Generate from the finished model:", "", f"    nova generate {what} --model {model}", ""]
    return "\n".join([*lines, *_FILES, ""])


_FILES = (
    "| file | content |",
    "|---|---|",
    "| `config.json` | the configuration; `nova train` takes it as a recipe |",
    "| `run.json` | every start: command, code, versions, hardware |",
    "| `inputs.json` | sha256 of the data and of the models it builds on |",
    "| `metrics.jsonl` | an object a line for each logged step |",
    "| `skipped.jsonl` | steps without a finite loss and gradient, with their samples |",
    "| `samples/` | samples of the averaged model on the way |",
    "| `checkpoints/` | states to go on from |",
    "| `model/`, `result.json` | the finished model and its figures |",
)


def _first_prompt(config: TransformerRun) -> str:
    return next(iter(config.observe.prompts), "a prompt")


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        facts = []
    names = (line.partition(":")[2].strip() for line in facts if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"


def _git(*arguments: str) -> str | None:
    """What git says of the checkout that this code is in, or None where there is none."""
    root = Path(nova.__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
