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
_SHARDS = "data/"
_FREE = {
    *("micro_batch", "workers", "worker_timeout", "sharding", "recompute", "compile"),
    *("checkpoint_every", "log_every", "keep_checkpoints", "max_skipped", "trackers", "project"),
    *(f"observe.{name}" for name in ("every", "prompts", "steps", "diffusion_steps", "guidance")),
}
"""Fields that change no number of a run, beyond rounding. What is held out is no longer trained on, so that does."""
_LENGTH = {"steps", "optimizer.schedule_steps"}
"""Fields that say how long a run is and how long its learning rate's curve. They may change, by an explicit choice."""
_PLACES = ("autoencoder", "text_encoder", "initial", "data.folder")
"""Fields that say where models and data are; what these hold is compared by `settle_inputs`."""


def settle(config: RunConfig, folder: Path) -> str | None:
    """Write `folder`/config.json; where there is one, refuse a `config` that would make other numbers.

    A run may become longer. If its learning rate would then have been another one in steps that are done, the user
    must say what it is to be: `optimizer.schedule_steps` as it was keeps the curve, a new one stretches it.

    Returns a line that names the fields that changed, for the user, or None.
    Raises UsageError that names each field that must not change.
    """
    file = folder / CONFIG
    line = None
    if file.exists():
        before = validated(type(config), read_json(file))
        old, new = dict(_leaves(before)), dict(_leaves(config))
        differing = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        changes = {name: f"{name} {old.get(name)!r} -> {new.get(name)!r}" for name in differing}
        refused = [changes[name] for name in differing if name not in _FREE | _LENGTH]
        if refused:
            named = ", ".join(refused)
            raise UsageError(f"{file}: the run here was started otherwise ({named}); choose another --output")
        if _LENGTH & changes.keys():
            _check_length(before, config, folder)
        if changes:
            line = f"{folder}: goes on with {', '.join(changes.values())}"
    replace_durably(file, json_bytes(config.model_dump(mode="json")))
    return line


def settle_inputs(digests: Mapping[str, str], folder: Path) -> None:
    """Write the digests of the models and data that a run builds on; where they are known, refuse others.

    `data/<name>` is a part of `data`: it tells how those differ.
    """
    file = folder / INPUTS
    if file.exists():
        before = read_json(file)
        differing = [name for name in before.keys() | digests if before.get(name) != digests.get(name)]
        changed = sorted(name for name in differing if not name.startswith(_SHARDS))
        if changed:
            named = ", ".join(f"data{_counted(before, digests)}" if name == "data" else name for name in changed)
            raise UsageError(
                f"{file}: {named} changed since the run was started; give the same, or choose another --output"
            )
    replace_durably(file, json_bytes(digests))


def _counted(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """How many shards came, went and changed; nothing where there are none, or they are not known."""
    old, new = ({name for name in names if name.startswith(_SHARDS)} for names in (before, now))
    changed = sum(before[name] != now[name] for name in old & new)
    counts = f" (shards: {len(new - old)} added, {len(old - new)} removed, {changed} changed)"
    return counts if old and new else ""


def _leaves(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every field but those of `_PLACES`."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if path in _PLACES:
            return
        if not isinstance(value, dict):
            yield path, value
            return
        for name, inner in value.items():
            yield from walk(inner, f"{path}.{name}" if path else name)

    return walk(config.model_dump(mode="json"), "")


def _check_length(before: RunConfig, after: RunConfig, folder: Path) -> None:
    """Refuse fewer steps than are done, and a curve whose past would change without a word about it."""
    done = max((step for step, _ in checkpoints(folder / CHECKPOINTS)), default=0)
    if after.steps < done:
        raise UsageError(f"{folder}: {done} steps are done, more than steps={after.steps}; choose another --output")
    if after.optimizer.schedule_steps is not None:
        return  # said so
    if any(_rate(before, step) != _rate(after, step) for step in range(done)):
        length = before.optimizer.schedule_steps or before.steps
        raise UsageError(
            f"{folder}: on a curve of {after.steps} steps, not {length}, the learning rate of the {done} steps done "
            f"would have been another; add optimizer.schedule_steps={length} to keep the curve (its last rate then "
            f"stays), or optimizer.schedule_steps={after.steps} to go on with the new one from here"
        )


def _rate(config: RunConfig, step: int) -> float:
    return learning_rate(config.optimizer, step, config.steps)
