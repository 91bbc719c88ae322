"""A run folder belongs to one run: what it was started with is written there, and must be what it goes on with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nova.checkpoints.folder import read_json
from nova.errors import UsageError
from nova.files import json_bytes, replace_durably
from nova.recipes.overrides import validated
from nova.training.checkpoint import checkpoints
from nova.training.config import RunConfig
from nova.training.optimizer import learning_rate
from nova.training.train import CHECKPOINTS

CONFIG, INPUTS = "config.json", "inputs.json"
_FREE = {
    *("micro_batch", "workers", "worker_timeout", "sharding", "recompute", "compile"),
    *("checkpoint_every", "log_every", "keep_checkpoints", "max_skipped", "trackers", "project"),
    *(f"observe.{name}" for name in ("every", "prompts", "steps", "diffusion_steps", "guidance")),
}
"""Fields that change no number of a run, beyond rounding. What is held out is no longer trained on, so that does."""
_PARTS = {"autoencoder", "text_encoder", "initial"}
"""Fields that say where other models are; what these hold is compared by `settle_inputs`."""


def settle(config: RunConfig, folder: Path) -> None:
    """Write `folder`/config.json; where there is one, refuse a `config` that would make other numbers.

    More or fewer steps are the same run as long as the learning rate of every step done so far stays what it was.
    Raises UsageError that names each differing field.
    """
    file = folder / CONFIG
    if file.exists():
        before = validated(type(config), read_json(file))
        old, new = dict(_leaves(before)), dict(_leaves(config))
        differing = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        if "steps" in differing and _same_rates(before, config, folder):
            differing.remove("steps")
        if differing:
            changes = ", ".join(f"{name} {old.get(name)!r} -> {new.get(name)!r}" for name in differing)
            raise UsageError(f"{file}: the run here was started otherwise ({changes}); choose another --output")
    replace_durably(file, json_bytes(config.model_dump(mode="json")))


def settle_inputs(digests: Mapping[str, str], folder: Path) -> None:
    """Write the digests of the models a run builds on; where they are known, refuse others."""
    file = folder / INPUTS
    if file.exists():
        before = read_json(file)
        changed = sorted(name for name in before.keys() | digests if before.get(name) != digests.get(name))
        if changed:
            raise UsageError(
                f"{file}: {', '.join(changed)} changed since the run was started; "
                "give the same model, or choose another --output"
            )
    replace_durably(file, json_bytes(digests))


def _leaves(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every field that matters to a run's numbers."""
    fields = config.model_dump(mode="json", exclude=_PARTS)

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, f"{path}.{name}" if path else name)
        elif path not in _FREE:
            yield path, value

    return walk(fields, "")


def _same_rates(before: RunConfig, after: RunConfig, folder: Path) -> bool:
    done = max((step for step, _ in checkpoints(folder / CHECKPOINTS)), default=0)
    return all(
        learning_rate(before.optimizer, step, before.steps) == learning_rate(after.optimizer, step, after.steps)
        for step in range(done)
    )
